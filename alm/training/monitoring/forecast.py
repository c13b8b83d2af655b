"""Forecasts the last score of a run from the curve so far and the learning rates to come.

The loss L falls as a power of the sum x of all learning rates towards an offset, and again while the rate decays:
L = L0 + A x^-a - C d (Tissue et al. 2024, "Scaling Law with Learning Rate Annealing", equation 1; d is the simplest
choice, how far the rate has fallen from its peak; Luo et al. 2025, "A Multi-Power Law for Loss Curve Prediction", has
a finer one). Over u = ln x that is a slope which shrinks as exp(-a u). Real curves follow it only roughly: the loss of
a model that starts to use more context falls faster for a while. So the slope gets random pushes as u grows, and the
further a forecast reaches, the less certain it is:

    L(u) = level - slope h(u - u_0) - sum over j of push_j h(u - u_j) - drop d
    h(v) = (1 - exp(-a v)) / a where v > 0, else 0

With normal priors on level, slope, pushes and drop, this is a linear regression, and the forecast a normal
distribution. Training losses are left out: with a shift of their own they changed no forecast (docs/benchmarks.md).

N scores, J places u_j, F = 3 + J features.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from alm.training.monitoring.metrics import Row

Floats = NDArray[np.float64]

CONFIDENCE = 0.9
FEWEST_SCORES = 2
# In units of u: a score from when the sum of rates was less than a twentieth of today's predicts nothing.
_OLDEST = -3.0
_PLACES_APART = 0.15
# Wider than any value of bits per byte, so the level is free.
_LEVEL_SPREAD = 10.0
_TABLE = 4096


class Curve:
    """Scores and training losses of a run so far, from its rows of metrics, in the order of their steps."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.score_steps: list[int] = []
        self.scores: list[float] = []  # bits per byte
        self.loss_steps: list[int] = []
        self.losses: list[float] = []  # nats per token
        self.skipped: list[int] = []  # since step 0, at the scores
        self.lr = self.peak_lr = 0.0  # of the newest logged step, and the highest one
        self._skipped = 0
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Add a row of `metrics.jsonl` of any kind."""
        self._skipped = row.get("skipped_steps", self._skipped)
        self.lr = row.get("lr", self.lr)
        self.peak_lr = max(self.peak_lr, self.lr)
        if "loss" in row:
            self.loss_steps.append(row["step"])
            self.losses.append(row["loss"])
        if "bits_per_byte" in row:
            self.score_steps.append(row["step"])
            # NaN compares false with everything, so it would never look worse.
            self.scores.append(math.inf if math.isnan(row["bits_per_byte"]) else row["bits_per_byte"])
            self.skipped.append(self._skipped)

    def losses_before(self, number: int) -> list[float]:
        """Return the training losses after the score before score `number`, up to that score.

        If no step was logged there, because logs are rarer than scores, that is the newest loss before.
        """
        after, until = self.score_steps[number - 1] if number else 0, self.score_steps[number]
        end = bisect_right(self.loss_steps, until)
        return self.losses[bisect_right(self.loss_steps, after) : end] or self.losses[:end][-1:]


@dataclass(frozen=True)
class Prior:
    """Typical values of a run, before its scores are known, in bits per byte; slopes per e-folding of the sum.

    Fitted to the last scores of short runs, forecast at several shares of them: docs/benchmarks.md.
    """

    slope: float = 0.22
    slope_spread: float = 2.0
    exponent: float = 0.27
    push: float = 0.14  # standard deviation over one e-folding
    drop: float = 0.18
    drop_spread: float = 0.125
    wander: float = 0.009  # of a score around its curve
    last: float = 0.009  # of the last one


PRIOR = Prior()


@dataclass(frozen=True)
class Forecast:
    """Bits per byte at the last step, and the interval that should contain it in `CONFIDENCE` of all runs."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Schedule:
    """A run's learning rates: at `steps`, the sum of the factors of the updates before, and the fall from the peak."""

    steps: Floats
    sums: Floats
    decay: Floats
    peak_step: int

    @classmethod
    def of(cls, lr_factor: Callable[[int], float], max_steps: int) -> Schedule:
        """Return the schedule of `lr_factor` for updates 0 to `max_steps` - 1, sampled if there are very many."""
        steps = np.unique(np.linspace(0, max_steps, min(max_steps, _TABLE) + 1).astype(np.int64))
        factors = np.array([lr_factor(min(int(step), max_steps - 1)) for step in steps])
        peak = int(factors.argmax())
        sums = np.append(0.0, np.cumsum(np.diff(steps) * factors[:-1]))
        decay = np.where(np.arange(len(steps)) < peak, 0.0, factors[peak] - factors)
        return cls(steps.astype(np.float64), sums, decay, int(steps[peak]))

    @property
    def max_steps(self) -> int:
        return int(self.steps[-1])

    def at(self, steps: Floats) -> tuple[Floats, Floats]:
        """Return the logarithm of the sum before, and the decay at, each of `steps`, which are not 0."""
        return np.log(np.interp(steps, self.steps, self.sums)), np.interp(steps, self.steps, self.decay)


def forecast(curve: Curve, schedule: Schedule, *, prior: Prior = PRIOR) -> Forecast | None:
    """Return the last score of the run that starts with `curve`; None at its end, or if too little is known."""
    if not curve.scores or curve.score_steps[-1] >= schedule.max_steps:
        return None
    points = _points(curve, schedule)
    if len(points.values) < FEWEST_SCORES:
        return None
    mean, deviation = _last(points, prior)
    reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * deviation
    return Forecast(*(round(max(mean + away, 0.0), 4) for away in (0, -reach, reach)))


@dataclass(frozen=True)
class _Points:
    """Scores to fit: (N,) values; (N + 1,) u and d of them and, last, of the run's last step. u is 0 now."""

    values: Floats
    u: Floats
    decay: Floats


def _points(curve: Curve, schedule: Schedule) -> _Points:
    """Return the points after the warm-up that are finite and not too old."""
    steps, values = np.array([curve.score_steps, curve.scores], dtype=np.float64)
    logs, decay = schedule.at(np.append(steps, schedule.max_steps))
    u = logs - logs[-2]
    counts = (steps >= max(schedule.peak_step, 1)) & np.isfinite(values) & (u[:-1] > _OLDEST)
    kept = np.append(counts, True)
    return _Points(values[counts], u[kept], decay[kept])


def _last(points: _Points, prior: Prior) -> tuple[float, float]:
    """Return mean and standard deviation of the score at the last step."""
    design, means, spreads = _regression(points, prior)
    seen, last = design[:-1], design[-1]  # (N, F), (F,)
    precision = seen.T @ seen / prior.wander**2 + np.diag(spreads**-2)
    surprise = seen.T @ (points.values - seen @ means) / prior.wander**2
    mean = last @ (means + np.linalg.solve(precision, surprise))
    variance = last @ np.linalg.solve(precision, last) + prior.last**2
    return float(mean), math.sqrt(float(variance))


def _regression(points: _Points, prior: Prior) -> tuple[Floats, Floats, Floats]:
    """Return (N + 1, F) features of the scores and of the last step, and (F,) prior means and standard deviations."""
    u, first = points.u, points.u[0]
    places = np.arange(first + _PLACES_APART, u[-1], _PLACES_APART)
    pushed = -_fall(u[:, None] - places, prior.exponent)
    design = np.column_stack([np.ones(len(u)), -_fall(u - first, prior.exponent), -points.decay, pushed])
    means = np.append([points.values[0], prior.slope, prior.drop], np.zeros(len(places)))
    push = np.full(len(places), prior.push * math.sqrt(_PLACES_APART))
    return design, means, np.append([_LEVEL_SPREAD, prior.slope_spread, prior.drop_spread], push)


def _fall(v: Floats, exponent: float) -> Floats:
    """Return h, the fall that a slope of 1 causes over `v`."""
    return -np.expm1(-exponent * np.maximum(v, 0)) / exponent
