"""Output for people: results on stdout, messages on stderr, and the listener that draws events.

A live display if stderr is a terminal, otherwise plain lines; only warnings with `--quiet` and
`--json`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alm import shown
from alm.cli.screen import talk as talk
from alm.cli.screen import write as write
from alm.cli.screen import write_exact as write_exact
from alm.errors import AlmError, shell
from alm.events import (
    CheckpointSaved,
    Event,
    Judged,
    Listener,
    Noted,
    Progressed,
    Resumed,
    Sampled,
    StageBegan,
    Stepped,
    UnitsProgressed,
    Validated,
    Warned,
    ignore,
)
from alm.report import formatting
from alm.report.formatting import duration as duration
from alm.report.formatting import size as size

_PLAIN_PROGRESS_SECONDS = 5.0
_SMOOTHING = 0.9
_LINE_CHARACTERS = 160
_CODE = " " * 4  # before a line of code in a traceback
_show_tracebacks = False


def show_error(error: AlmError) -> None:
    """Print the message as `Error:`, and the hint, if there is one, as `Hint:`."""
    if _show_tracebacks:
        talk(_traceback())
    talk(f"Error: {shown.message(error.message)}")
    if error.hint:
        talk(f"\nHint: {shown.line(error.hint)}")


def show_bug() -> None:
    """Print a traceback and ask the user to report it."""
    talk(_traceback())
    talk("\nError: this is a bug in alm, not a mistake of yours")
    talk("\nHint: please report the lines above, with the command you ran")


def _traceback() -> str:
    """The traceback of the current error, without libraries' advice to switch off a safeguard."""
    lines = traceback.format_exc().splitlines()
    return "\n".join(line for line in lines if line.startswith(_CODE) or not shown.is_unsafe_advice(line))


def show_result(values: Mapping[str, Any], lines: Sequence[str], *, as_json: bool) -> None:  # Any: JSON
    """Print the result of a command on stdout: one JSON object, or lines to read."""
    if as_json:
        write(shown.as_json(values))
    else:
        for line in lines:
            write(shown.line(line))


def next_step(*words: str | Path, quiet: bool, as_json: bool) -> None:
    """Print the next command, ready to be pasted."""
    if not (quiet or as_json):
        talk(f"next: {shell(*words)}")


def table(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of two aligned columns."""
    cells = [(shown.line(left), shown.line(right)) for left, right in rows]
    width = max((len(left) for left, _ in cells), default=0)
    return [f"{left:<{width}}  {right}" for left, right in cells]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns; those in the middle hold numbers and are aligned right."""
    cells = [[shown.line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def units_line(event: UnitsProgressed, seconds: float) -> str:
    """The progress of a task over units: documents, speed, share kept, time left."""
    kept = f"  kept {event.bytes_kept / event.bytes:.0%}" if event.bytes else ""
    speed = f"  {event.bytes / 1e6 / seconds:,.1f} MB/s" if seconds > 0 and event.bytes else ""
    left = f"  eta {duration(seconds / event.done * (event.total - event.done))}" if event.done else ""
    return f"{event.done:,} of {event.total:,} units  {event.documents:,} documents{speed}{kept}{left}"


def count_of(number: float) -> str:
    """A number to two or three digits: 950, 13M, 1.5B."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g}{unit}"
    return f"{number:.0f}"


def score(bits_per_byte: float, margin: float | None) -> str:
    """`1.943 ± 0.021 bits/byte`, with two digits of the margin, or four places without one."""
    return f"{formatting.score(bits_per_byte, margin)} bits/byte"


def forecast(event: Judged) -> str:
    """The forecast as `formatting.forecast` formats it; empty if there is none."""
    if event.forecast is None or event.low is None or event.high is None:
        return ""
    return formatting.forecast(event.forecast, event.low, event.high)


def one_line(text: str) -> str:
    """`text` on one line, escaped and cut to a maximum length."""
    found = shown.line(" ".join(text.split()))
    return found if len(found) <= _LINE_CHARACTERS else found[: _LINE_CHARACTERS - 1] + "…"


@contextlib.contextmanager
def listening(
    *, quiet: bool = False, as_json: bool = False, verbose: bool = False, live: bool = True, rank: int = 0
) -> Iterator[Listener]:
    """The listener for this terminal and these flags; `live` is `logging.rich_progress`.

    Of the ranks that train together, only the first prints.
    """
    global _show_tracebacks
    if verbose:
        _show_tracebacks = True
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")
    if rank:
        yield ignore
    elif quiet or as_json:
        yield warnings_only
    elif live and not verbose and is_terminal():
        from alm.cli.render import LiveListener

        with LiveListener() as listener:
            yield listener
    else:
        yield PlainListener()


def is_terminal() -> bool:
    """Whether stderr can show a live display."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def warnings_only(event: Event) -> None:
    """Print warnings and ignore all other events."""
    if isinstance(event, Warned):
        talk(line_for(event))


def line_for(event: Event) -> str:
    """The line to print for an event that happens once."""
    match event:
        case Noted(message):
            return shown.message(message)
        case Warned(message, hint):
            return f"Warning: {shown.message(message)}" + (f" (hint: {shown.line(hint)})" if hint else "")
        case StageBegan(number, total, command):
            return f"[{number}/{total}] {shown.line(command)}"
        case Resumed(run, step, max_steps):
            return (
                f"resuming `{shown.line(str(run))}` at step {step} of {max_steps} (`--resume never` starts another run)"
            )
        case CheckpointSaved(step):
            return f"Checkpoint saved at step {step}"
        case Validated(step, loss, bits_per_byte, margin):
            return f"step {step}  validation loss {loss:.4f}  {score(bits_per_byte, margin)}"
        case Judged(step, max_steps, verdict):
            ahead = f"; forecast {found} at step {max_steps}" if (found := forecast(event)) else ""
            return f"step {step}  {shown.line(verdict)}{ahead}"
        case Sampled(step, ((prompt, text), *_)):
            return f"step {step}  sample: {one_line(prompt + text)}"
    raise AssertionError(event)


class Smoothed:
    """An exponential moving average without a bias of its first values towards zero."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._weight = 0.0

    def add(self, value: float) -> float:
        """The average after `value`."""
        self._sum = _SMOOTHING * self._sum + (1 - _SMOOTHING) * value
        self._weight = _SMOOTHING * self._weight + (1 - _SMOOTHING)
        return self._sum / self._weight  # corrects the bias, as Adam does (Kingma & Ba 2015)


class PlainListener:
    """Prints one line per event, and progress at most every few seconds."""

    def __init__(self) -> None:
        self._loss = Smoothed()
        self._rate = Smoothed()
        self._tasks: dict[str, float] = {}
        self._said = time.monotonic()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stepped):
            self._stepped(event)
        elif isinstance(event, Progressed):
            self._progressed(event)
        elif isinstance(event, UnitsProgressed):
            self._units_progressed(event)
        else:
            talk(line_for(event))

    def _stepped(self, event: Stepped) -> None:
        if event.loss is None:
            return
        loss, rate = self._loss.add(event.loss), self._rate.add(event.tokens_per_second)
        mfu = f"  mfu {event.mfu:.0%}" if event.mfu is not None else ""
        eta = f"  eta {duration(event.seconds_left)}" if event.seconds_left is not None else ""
        talk(f"step {event.step}/{event.max_steps}  loss {loss:.4f}  lr {event.lr:.2e}  {rate:,.0f} tok/s{mfu}{eta}")

    def _units_progressed(self, event: UnitsProgressed) -> None:
        now = time.monotonic()
        began = self._tasks.setdefault(event.task, now)
        if now - self._said >= _PLAIN_PROGRESS_SECONDS:
            self._said = now
            talk(f"{shown.line(event.task)}: {units_line(event, now - began)}")

    def _progressed(self, event: Progressed) -> None:
        now = time.monotonic()
        if now - self._said >= _PLAIN_PROGRESS_SECONDS:
            self._said = now
            of = f" of {event.total:,}" if event.total else ""
            talk(f"{shown.line(event.task)}: {event.done:,}{of} {shown.line(event.unit)}")
