"""Rows of a run's metrics as lists of scores and losses, for forecasts and verdicts."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable

from alm.training.monitoring.metrics import Row


class Curve:
    """A run's scores and training losses so far, in the order of their steps."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.score_steps: list[int] = []
        self.scores: list[float] = []  # bits per byte
        self.loss_steps: list[int] = []
        self.losses: list[float] = []  # nats per token
        self.skipped: list[int] = []  # since step 0, at the scores
        self._skipped = 0
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Add a row of `metrics.jsonl` of any kind."""
        self._skipped = row.get("skipped_steps", self._skipped)
        if "loss" in row:
            self.loss_steps.append(row["step"])
            self.losses.append(row["loss"])
        if "bits_per_byte" in row:
            self.score_steps.append(row["step"])
            # NaN compares false with everything, so it would never look worse.
            self.scores.append(math.inf if math.isnan(row["bits_per_byte"]) else row["bits_per_byte"])
            self.skipped.append(self._skipped)

    def losses_before(self, number: int) -> list[float]:
        """Return the training losses after the score before score `number`, up to that score."""
        after, until = self.score_steps[number - 1] if number else 0, self.score_steps[number]
        return self.losses[bisect_right(self.loss_steps, after) : bisect_right(self.loss_steps, until)]
