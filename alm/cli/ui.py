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
from alm.cli.event_lines import Smoothed, line_for, units_line
from alm.cli.event_lines import duration as duration
from alm.cli.event_lines import score as score
from alm.cli.event_lines import size as size
from alm.cli.screen import echo_err as echo_err
from alm.cli.screen import write as write
from alm.cli.screen import write_exact as write_exact
from alm.errors import AlmError, shell
from alm.events import (
    Event,
    Listener,
    Progressed,
    Stepped,
    TrainingBegan,
    UnitsProgressed,
    Warned,
    ignore,
)

_FIRST_PROGRESS_SECONDS, _PLAIN_PROGRESS_SECONDS = 1.0, 5.0
MEASURING = "looking at the text, and at how fast this machine trains"
_CODE = " " * 4  # before a line of code in a traceback
_show_tracebacks = False


def show_error(error: AlmError) -> None:
    """Print the message as `Error:`, and the hint, if there is one, as `Hint:`."""
    if _show_tracebacks:
        echo_err(_traceback())
    echo_err(f"Error: {shown.message(error.message)}")
    if error.hint:
        echo_err(f"\nHint: {shown.line(error.hint)}")


def show_bug() -> None:
    """Print a traceback and ask the user to report it."""
    echo_err(_traceback())
    echo_err("\nError: this is a bug in alm, not a mistake of yours")
    echo_err("\nHint: please report the lines above, with the command you ran")


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


def begin(doing: str, *, quiet: bool, as_json: bool) -> None:
    """Print what a command does, before the imports, which take seconds on a busy machine."""
    if not (quiet or as_json):
        echo_err(f"{shown.line(doing)} ...")


def next_step(*words: str | Path, quiet: bool, as_json: bool) -> None:
    """Print the next command, ready to be pasted."""
    if not (quiet or as_json):
        echo_err(f"next: {shell(*words)}")


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


def count_of(number: float) -> str:
    """A number to two or three digits: 950, 13M, 1.5B."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g}{unit}"
    return f"{number:.0f}"


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
        echo_err(line_for(event))


class PlainListener:
    """Prints one line per event, and progress at most every few seconds."""

    def __init__(self) -> None:
        self._loss = Smoothed()
        self._rate = Smoothed()
        self._tasks: dict[str, float] = {}
        self._began: float | None = None
        self._said = time.monotonic() - _PLAIN_PROGRESS_SECONDS + _FIRST_PROGRESS_SECONDS

    def __call__(self, event: Event) -> None:
        if isinstance(event, TrainingBegan):
            self._began = time.monotonic()
        elif isinstance(event, Stepped):
            self._stepped(event)
        elif isinstance(event, Progressed):
            self._progressed(event)
        elif isinstance(event, UnitsProgressed):
            self._units_progressed(event)
        else:
            echo_err(line_for(event))

    def _stepped(self, event: Stepped) -> None:
        if event.loss is None:
            self._first_step(event)
            return
        self._began = None
        loss, rate = self._loss.add(event.loss), self._rate.add(event.tokens_per_second)
        mfu = f"  mfu {event.mfu:.0%}" if event.mfu is not None else ""
        eta = f"  eta {duration(event.seconds_left)}" if event.seconds_left is not None else ""
        echo_err(
            f"step {event.step}/{event.max_steps}  loss {loss:.4f}  lr {event.lr:.2e}  {rate:,.0f} tok/s{mfu}{eta}"
        )

    def _first_step(self, event: Stepped) -> None:
        """Print the first step of this start, if it is not a log step: the next one may be minutes away."""
        if self._began is not None and event.shown_loss is not None:
            seconds, self._began = time.monotonic() - self._began, None
            left = duration(seconds * (event.max_steps - event.step))
            echo_err(f"step {event.step}/{event.max_steps}  loss {event.shown_loss:.4f}  lr {event.lr:.2e}  eta {left}")

    def _units_progressed(self, event: UnitsProgressed) -> None:
        now = time.monotonic()
        began = self._tasks.setdefault(event.task, now)
        if now - self._said >= _PLAIN_PROGRESS_SECONDS:
            self._said = now
            echo_err(f"{shown.line(event.task)}: {units_line(event, now - began)}")

    def _progressed(self, event: Progressed) -> None:
        now = time.monotonic()
        if now - self._said >= _PLAIN_PROGRESS_SECONDS:
            self._said = now
            of = f" of {event.total:,}" if event.total else ""
            echo_err(f"{shown.line(event.task)}: {event.done:,}{of} {shown.line(event.unit)}")
