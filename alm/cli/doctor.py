"""`alm doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alm.cli import options, ui
from alm.cli.help import Commands

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alm.doctor.check import Check

app = Commands()

_MARK_CHARACTERS, _NAME_CHARACTERS, _WORD_CHARACTERS = 8, 25, 8
# On a terminal too narrow to leave this many characters beside a name, the result goes below it.
_LEAST_ROOM = 24


@app.command(examples=("alm doctor", "alm doctor --device cpu --out runs"))
def doctor(
    device: options.Device = "auto",
    data: Annotated[
        Path | None, typer.Option("--data", help="Packed data to time reading from.  [default: generated data]")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="A folder on the disk for checkpoints.")] = Path(),
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Check that this machine works as alm expects.

    It takes less than a minute, and names a cure for whatever fails.
    """
    from alm.doctor.examine import chosen, examine
    from alm.errors import AlmError

    choice = chosen(device)
    # No live display: it would mix with the lines of the checks.
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose, live=False) as on_event:
        found = list(_shown(examine(choice, out=out, data=data, on_event=on_event), silent=json))
    failed = [check for check in found if check.outcome == "failed"]
    values = {"device": str(choice.device), "precision": choice.precision, "is_sound": not failed}
    summary = [f"{_summary(found)}: {choice.device} in {choice.precision}: {choice.precision_reason}"]
    ui.show_result({**values, "checks": [vars(check) for check in found]}, summary, as_json=json)
    if failed:
        raise AlmError(f"{', '.join(f'`{check.name}`' for check in failed)} failed", hint=failed[0].cure)
    words = [] if device == "auto" else ["--device", device]
    ui.next_step("alm", "verify-resume", *words, quiet=quiet, as_json=json)


def _shown(checks: Iterator[Check], *, silent: bool) -> Iterator[Check]:
    """Yield the checks, and print each as it completes."""
    for check in checks:
        if not silent:
            for line in lines(check, width=_width()):
                ui.write(line)
        yield check


def _width() -> int | None:
    """Width of the terminal in characters; None if stdout is not a terminal: lines are not wrapped then."""
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def lines(check: Check, *, width: int | None) -> list[str]:
    """A check as lines of at most `width` characters; the cure is not wrapped, so that it can be copied."""
    mark = "note" if check.is_note else check.outcome.upper() if check.outcome == "failed" else check.outcome
    found = _wrapped(f"{mark:<{_MARK_CHARACTERS}}{check.name:<{_NAME_CHARACTERS}}", check.measured, width)
    if check.cause is None:
        return found
    for word, text in (("wanted", check.wanted), ("cause", check.cause)):
        found += _wrapped(_label(word), text, width)
    return [*found, f"{_label('cure')}{check.cure}"]


def _label(word: str) -> str:
    return f"{'':<{_MARK_CHARACTERS}}{word:<{_WORD_CHARACTERS}}"


def _wrapped(head: str, text: str, width: int | None) -> list[str]:
    import textwrap

    if width is None:
        return [(head + text).rstrip()]
    room = width - len(head)
    if room >= _LEAST_ROOM:
        first, *rest = textwrap.wrap(text, room, break_on_hyphens=False) or [""]
        return [(head + first).rstrip(), *(" " * len(head) + line for line in rest)]
    indent = " " * _MARK_CHARACTERS
    below = textwrap.wrap(text, width - len(indent), break_on_hyphens=False)
    return [head.rstrip(), *(indent + line for line in below)]


def _summary(found: list[Check]) -> str:
    number = {outcome: sum(check.outcome == outcome for check in found) for outcome in ("ok", "failed", "skipped")}
    return ", ".join(f"{count} {outcome}" for outcome, count in number.items() if count or outcome == "ok")
