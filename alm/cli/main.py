"""The command `alm`: the tree of commands, and the one place where failures become exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Annotated, Any

import typer

from alm.cli import (
    chat,
    config,
    corpus,
    data,
    device,
    doctor,
    export,
    finetune,
    import_,
    info,
    loading,
    pack,
    plan,
    pretrain,
    push,
    quantize,
    quickstart,
    report,
    runs,
    sample,
    screen,
    tokenizer,
    ui,
    verify_resume,
    watch,
)
from alm.cli.help import Commands
from alm.errors import EXIT_BUG, EXIT_FAILURE, EXIT_INTERRUPTED, AlmError, EchoedError, StoppedError, shell
from alm.version import __version__

app = Commands(
    name="alm",
    help="Small language models from scratch: from raw text to your own model.",
    epilog="\n".join(
        (
            "alm quickstart my-texts/",
            "alm corpus prepare my-texts/ && alm tokenizer train && alm pack",
            'alm pretrain && alm sample "Once upon a time"',
        )
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _group, _module, _name in (
    ("Start", quickstart, None),
    ("Data", corpus, "corpus"),
    ("Data", tokenizer, "tokenizer"),
    ("Data", pack, None),
    ("Data", data, "data"),
    ("Train", plan, None),
    ("Train", pretrain, None),
    ("Train", finetune, None),
    ("Use", sample, None),
    ("Use", chat, None),
    ("Share", quantize, None),
    ("Share", export, None),
    ("Share", import_, None),
    ("Share", push, None),
    ("Inspect", runs, None),
    ("Inspect", watch, None),
    ("Inspect", report, None),
    ("Inspect", info, None),
    ("Inspect", config, "config"),
    ("Inspect", device, None),
    ("Inspect", doctor, None),
    ("Inspect", verify_resume, None),
):
    for _command_info in _module.app.registered_commands if _name is None else ():
        _command_info.rich_help_panel = _group
    app.add_typer(_module.app, name=_name, rich_help_panel=_group)

# Commands that keep finished work, so that the same command continues from it. The others start over.
_CONTINUE = frozenset({"quickstart", "corpus", "pack", "pretrain", "finetune"})


def _show_version(wanted: bool) -> None:
    if wanted:
        ui.write(f"alm {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of `alm` itself."""


def with_bare_resume(arguments: Sequence[str]) -> list[str]:
    """Expand `--resume` as the last word, or before another option, to `--resume auto`."""
    words: list[str] = []
    for word, following in pairwise([*arguments, "-"]):
        words.append(word)
        if word == "--resume" and following.startswith("-"):
            words.append("auto")
    return words


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a named failure, 2 wrong usage, 70 a bug, 130 interrupted."""
    with screen.guarding():
        _run(arguments)


@cache
def _command() -> Callable[..., Any]:
    """The tree of commands, built once a process: it takes 0.2 s."""
    tree = typer.main.get_command(app)
    _leave_reading_to_commands(tree)
    return tree


def _leave_reading_to_commands(command: Any) -> None:  # Any: Typer has a private copy of Click
    """Let a command, not Click, report a path that cannot be read: its error says what to do."""
    for parameter in command.params:
        if hasattr(getattr(parameter, "type", None), "readable"):
            parameter.type.readable = False
    for each in getattr(command, "commands", {}).values():
        _leave_reading_to_commands(each)


def _run(arguments: Sequence[str] | None) -> None:
    words = with_bare_resume(sys.argv[1:] if arguments is None else arguments)
    try:
        with loading.announced(words):
            _command()(args=words, prog_name="alm", obj=words)
    except StoppedError as stop:
        if words[:1] == ["quickstart"]:  # the stage in it proposes to continue alone
            stop.hint = f"run `{shell('alm', *words)}` to continue"
        ui.show_error(stop)
        raise SystemExit(stop.exit_code) from None
    except EchoedError as echo:
        raise SystemExit(echo.exit_code) from None
    except AlmError as error:
        ui.show_error(error)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader of stdout is gone; without this, Python reports another error when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(EXIT_FAILURE) from None
        from alm.files import system_error

        ui.show_error(system_error(error))
        raise SystemExit(EXIT_FAILURE) from None
    except SystemExit as ending:
        if ending.code == EXIT_INTERRUPTED:  # Typer turns Ctrl-C into this exit code, without a message
            is_kept = bool(words) and words[0] in _CONTINUE
            ui.echo_err("interrupted" + ("; finished work is kept" if is_kept else ""))
            ui.echo_err(f"\nHint: run `{shell('alm', *words)}` to {'continue' if is_kept else 'start again'}")
        raise
    except Exception:  # noqa: BLE001 - the only catch-all: whatever gets here is a bug and is reported as one
        ui.show_bug()
        raise SystemExit(EXIT_BUG) from None
