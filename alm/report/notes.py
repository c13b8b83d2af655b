"""Notes for readers of the curves: skipped steps, stops, resumes, changed settings and unreadable lines."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from alm.artifacts import flat
from alm.report.history import SCORE
from alm.report.record import Record
from alm.report.tail import Tail
from alm.training.monitoring import metrics
from alm.training.monitoring.metrics import Row

_MOST_STEPS = 5


@dataclass(frozen=True)
class Note:
    """A sentence; `is_bad` if something went wrong."""

    text: str
    is_bad: bool = False


def notes(record: Record) -> list[Note]:
    """All notes on a run."""
    return [
        *_skipped(record),
        *_damaged(record),
        *_stopped(record),
        *_set_aside(record),
        *_changed(record),
        *_missing(record),
    ]


def _skipped(record: Record) -> Iterator[Note]:
    steps = sorted(set(record.skipped))
    if steps:
        look = f"alm data show --run {shlex.quote(str(record.folder))} --step {steps[0]}"
        number = "1 step was" if len(steps) == 1 else f"{len(steps):,} steps were"
        yield Note(
            f"{number} skipped, because a loss or gradient was not finite: {_listed(steps)}. "
            f"The batch of the first one: {look}",
            is_bad=True,
        )


def _damaged(record: Record) -> Iterator[Note]:
    if record.damaged:
        lines = "1 line" if record.damaged == 1 else f"{record.damaged:,} lines"
        yield Note(f"{lines} of the run's records cannot be read and are left out.", is_bad=True)


def _stopped(record: Record) -> Iterator[Note]:
    steps = sorted(int(path.stem.split("-")[1][4:]) for path in record.folder.glob("ckpt-step*-interrupt.pt"))
    if steps:
        yield Note(f"Stopped before its end, and saved, at {'step' if len(steps) == 1 else 'steps'} {_listed(steps)}.")


def _set_aside(record: Record) -> Iterator[Note]:
    folders = [path for path in record.folder.glob("set-aside-*") if path.is_dir()]
    for folder in sorted(folders, key=lambda path: (len(path.name), path.name)):
        rows: list[Row] = []
        Tail(folder / metrics.NAME, rows).look()
        steps = [row["step"] for row in rows]
        aside = f": steps {min(steps):,} to {max(steps):,} of the earlier attempt" if steps else ""
        yield Note(f"Resumed from an older checkpoint; what came after it was set aside in {folder.name}{aside}.")


def _changed(record: Record) -> Iterator[Note]:
    before, now = dict(flat(record.metadata.config)), dict(flat(record.config))
    changed = [f"{key} {before[key]} → {now[key]}" for key in now if key in before and before[key] != now[key]]
    if changed:
        yield Note(f"Changed when it was resumed: {', '.join(changed)}.")


def _missing(record: Record) -> Iterator[Note]:
    if record.last("lr") is None:
        yield Note("No step has been logged yet.")
    if not record.series(SCORE):
        yield Note("No held-out text has been scored: this run has no bits per byte.")
    if not record.samples:
        yield Note("It has written no samples.")


def _listed(steps: Iterable[int]) -> str:
    numbers = [f"{step:,}" for step in steps]
    more = f" and {len(numbers) - _MOST_STEPS:,} more" if len(numbers) > _MOST_STEPS else ""
    return ", ".join(numbers[:_MOST_STEPS]) + more
