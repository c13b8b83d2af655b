"""`alm sample -i`: continues one line after another, with settings that can be changed in between."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from alm.cli import ui
from alm.cli.sample_output import Texts
from alm.errors import AlmError, InputError
from alm.events import Listener
from alm.generation.config import SamplingConfig
from alm.generation.load import LoadedModel

_HELP = """\
Type a line to continue it, or an empty line to begin a new document. Ctrl-C ends a text.
/again             continue the last line again, with the next seed
/set KEY=VALUE     change a setting: /set temperature=0.5
/show              show the settings
/help              show this help
/quit              quit"""


def converse(loaded: LoadedModel, sampling: SamplingConfig, *, quiet: bool, on_event: Listener) -> None:
    """Continue each line of stdin until it ends. Each text uses the next seed."""
    if not quiet and sys.stdin.isatty():
        ui.echo_err(_HELP)
    prompt = ""
    for line in _lines():
        with _reported_errors():
            if line == "/help":
                ui.echo_err(_HELP)
            elif line == "/show":
                ui.echo_err("\n".join(ui.table([(key, str(value)) for key, value in sampling.model_dump().items()])))
            elif line == "/quit":
                return
            elif line.startswith("/set "):
                sampling = _changed(sampling, line.removeprefix("/set "))
            elif line.startswith("/") and line != "/again":
                raise InputError(f"unknown command `{line.split()[0]}`", hint="type `/help`")
            else:
                prompt = prompt if line == "/again" else line
                _continue(loaded, prompt, sampling, quiet=quiet, on_event=on_event)
                sampling = sampling.model_copy(update={"seed": sampling.seed + 1})


def _lines() -> Iterator[str]:
    """Yield lines of stdin, with a prompt on a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        for line in sys.stdin:
            yield line.rstrip("\r\n")
        return
    with contextlib.suppress(ImportError):  # the Windows console has its own line editing
        import readline  # noqa: F401
    while True:
        try:
            yield input("> ")
        except EOFError:
            ui.echo_err("")
            return


@contextlib.contextmanager
def _reported_errors() -> Iterator[None]:
    """Report an error and continue with the next line."""
    try:
        yield
    except AlmError as error:
        ui.show_error(error)


def _changed(sampling: SamplingConfig, change: str) -> SamplingConfig:
    from alm.config.load import load

    hint = "type `/show` to see every setting with its value"
    typed = {change.strip(): f"/set {change.strip()}"}
    return load(SamplingConfig, [], base=sampling.model_dump(), overrides=[*typed], typed=typed, hint=hint)


def _continue(loaded: LoadedModel, prompt: str, sampling: SamplingConfig, *, quiet: bool, on_event: Listener) -> None:
    texts = Texts(prompt, sampling, 1, silent=False)
    with contextlib.suppress(KeyboardInterrupt):
        texts.take(loaded.write([prompt], sampling, on_event=on_event))
    if not quiet:
        ui.echo_err(texts.summary())
