"""The metrics rows of a run as columns of numbers, read once, one block at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alm.report.series import Series
from alm.training.monitoring.metrics import Row

Floats = NDArray[np.float64]

SCORE, MARGIN = "bits_per_byte", "bits_per_byte_margin"
_LOGGED = "lr"  # every row of a logged step has one
_OF_STEPS = (
    "loss",
    "lr",
    "gradient_norm",
    "tokens",
    "tokens_per_second",
    "step_seconds",
    "mfu",
    "data_wait_share",
    "memory_bytes",
    "skipped_steps",
)
_OF_SCORES = (SCORE, MARGIN, "validation_loss")
_FIRST_ROOM = 1024
_PLAIN = frozenset({float, int, type(None)})


class Table:
    """Numbers of rows, one column per key, in order of steps; the newest row of a step replaces older ones.

    A series returned by `series` does not change when rows are added.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = tuple(keys)
        self._count = 0
        self._steps = np.empty(0, dtype=np.int64)
        self._values = np.empty((len(self.keys), 0))

    def extend(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        if not rows:
            return
        steps = np.array([row["step"] for row in rows], dtype=np.int64)
        values = np.array([numbers(rows, key) for key in self.keys])
        is_later = not self._count or steps[0] > self._steps[self._count - 1]
        if is_later and bool(np.all(steps[1:] > steps[:-1])):
            self._append(steps, values)
        else:
            self._merge(steps, values)

    def series(self, key: str) -> Series:
        """The column `key` over the steps."""
        return Series(self._steps[: self._count], self._values[self.keys.index(key), : self._count])

    def _append(self, steps: NDArray[np.int64], values: Floats) -> None:
        first, self._count = self._count, self._count + len(steps)
        if self._count > len(self._steps):  # doubled, so that every row is copied about once on average
            room = max(2 * self._count, _FIRST_ROOM)
            self._steps = np.concatenate([self._steps[:first], np.empty(room - first, dtype=np.int64)])
            self._values = np.concatenate([self._values[:, :first], np.empty((len(self.keys), room - first))], axis=1)
        self._steps[first : self._count] = steps
        self._values[:, first : self._count] = values

    def _merge(self, steps: NDArray[np.int64], values: Floats) -> None:
        """Insert rows whose steps exist already, or lie between existing ones."""
        steps = np.concatenate([self._steps[: self._count], steps])
        values = np.concatenate([self._values[:, : self._count], values], axis=1)
        self._steps, from_the_end = np.unique(steps[::-1], return_index=True)
        self._values = values[:, len(steps) - 1 - from_the_end]
        self._count = len(self._steps)


class History:
    """Everything that is shown of the rows of `metrics.jsonl`, of any number."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self.count = 0
        self.step = 0
        self.seconds = 0.0  # spent in steps, as `metrics.training_seconds` adds them up
        self.tokens_per_step: int | None = None  # from the newest row that has it
        self.skipped: list[int] = []
        self.newest_score: Row = {}
        self._seconds_until = 0
        self._logged, self._scored = Table(_OF_STEPS), Table(_OF_SCORES)

    def extend(self, rows: Sequence[Row]) -> None:
        """Add the rows that follow."""
        if not rows:
            return
        self.count += len(rows)
        self.step = max(self.step, *(row["step"] for row in rows))
        self._add_seconds(rows)
        self._logged.extend([row for row in rows if _LOGGED in row])
        scored = [row for row in rows if SCORE in row]
        self._scored.extend(scored)
        for row in scored:
            if row["step"] >= self.newest_score.get("step", 0):
                self.newest_score = row
        self.skipped += [row["step"] for row in rows if "skipped_rows" in row]
        newest = next((row for row in reversed(rows) if row["step"] and number(row.get("tokens")) is not None), None)
        if newest is not None:
            self.tokens_per_step = round(newest["tokens"] / newest["step"])

    def columns(self) -> dict[str, Series]:
        """Values over the steps. A logged step with a missing or non-finite value is a gap."""
        return {key: table.series(key) for table in (self._logged, self._scored) for key in table.keys}

    def _add_seconds(self, rows: Sequence[Row]) -> None:
        each = numbers(rows, "step_seconds")
        is_known = each >= 0  # not NaN either
        if not is_known.any():
            return
        steps = np.array([row["step"] for row in rows], dtype=np.int64)[is_known]
        until = np.maximum.accumulate(np.append(self._seconds_until, steps))  # rows of a step passed add nothing
        spent = np.diff(until) * each[is_known]
        # A running sum, not a pairwise one: its rounding does not depend on where a block ends.
        self.seconds = float(np.cumsum(np.append(self.seconds, spent))[-1])
        self._seconds_until = int(until[-1])


def numbers(rows: Sequence[Row], key: str) -> Floats:
    """The value of each row, NaN if it is not a finite number."""
    values = [row.get(key) for row in rows]
    if _PLAIN.issuperset(map(type, values)):
        try:
            found = np.array(values, dtype=np.float64)
        except OverflowError:
            pass
        else:
            found[np.isinf(found)] = math.nan
            return found
    return np.array([math.nan if (known := number(value)) is None else known for value in values], dtype=np.float64)


def number(value: Any) -> float | None:  # Any: JSON
    """`value` if it is a finite number, else None."""
    if not isinstance(value, int | float) or isinstance(value, bool):  # a bool is an int
        return None
    try:
        found = float(value)
    except OverflowError:  # JSON integers are unbounded
        return None
    return found if math.isfinite(found) else None
