"""`alm sample -i`: one line after the other is continued, with settings that can be changed in between."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from alm.cli import ui
from alm.cli.written import Texts
from alm.errors import AlmError, InputError
from alm.events import Listener
from alm.generation.load import LoadedModel
from alm.generation.sampling import SamplingConfig

_HELP = """\
A line is continued; an empty one begins a new document. Ctrl-C ends a text.
/again             continue the line before once more, with the next seed
/set KEY=VALUE     change a setting: /set temperature=0.5
/show              the settings
/help              this
/quit              the end"""


def converse(loaded: LoadedModel, sampling: SamplingConfig, *, quiet: bool, on_event: Listener) -> None:
    """Continue lines of stdin until it ends. Each text has the next seed."""
    if not quiet and sys.stdin.isatty():
        ui.talk(_HELP)
    prompt = ""
    for line in _lines():
        with _told():
            if line == "/help":
                ui.talk(_HELP)
            elif line == "/show":
                ui.talk("\n".join(ui.table([(key, str(value)) for key, value in sampling.model_dump().items()])))
            elif line == "/quit":
                return
            elif line.startswith("/set "):
                sampling = _changed(sampling, line.removeprefix("/set "))
            elif line.startswith("/") and line != "/again":
                raise InputError(f"`{line.split()[0]}` is no command here", hint="type `/help`")
            else:
                prompt = prompt if line == "/again" else line
                _continue(loaded, prompt, sampling, quiet=quiet, on_event=on_event)
                sampling = sampling.model_copy(update={"seed": sampling.seed + 1})


def _lines() -> Iterator[str]:
    """Lines of stdin, asked for where somebody types them."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        for line in sys.stdin:
            yield line.rstrip("\r\n")
        return
    with contextlib.suppress(ImportError):  # Windows edits lines by itself
        import readline  # noqa: F401
    while True:
        try:
            yield input("> ")
        except EOFError:
            ui.talk("")
            return


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """A mistake is told, and costs no more than its line."""
    try:
        yield
    except AlmError as error:
        ui.show_error(error)


def _changed(sampling: SamplingConfig, change: str) -> SamplingConfig:
    from alm.config.load import load

    return load(SamplingConfig, [], base=sampling.model_dump(), overrides=[change.strip()])


def _continue(loaded: LoadedModel, prompt: str, sampling: SamplingConfig, *, quiet: bool, on_event: Listener) -> None:
    texts = Texts(prompt, sampling, 1, silent=False)
    with contextlib.suppress(KeyboardInterrupt):
        texts.take(loaded.write([prompt], sampling, on_event=on_event))
    if not quiet:
        ui.talk(texts.summary())
