"""Where a run will end: its last score, forecast from the curve so far and the learning rates to come.

A loss L falls as a power of the sum x of all learning rates towards an offset, and once more while the rate decays:
L = L0 + A x^-a - C d (Tissue et al. 2024, "Scaling Law with Learning Rate Annealing", equation 1; d is as simple here
as it can be, how far the rate has fallen from its peak; Luo et al. 2025, "A Multi-Power Law for Loss Curve
Prediction", has a finer one). In the logarithm of L, over u = ln x, that is a slope which shrinks as exp(-a u). Real
curves keep to it only roughly: a model that begins to use more context falls faster for a while. So the slope is pushed
at random as u grows, and the further a forecast reaches, the less certain it is:

    ln L(u) = level - slope h(u - u_0) - sum over j of push_j h(u - u_j) - drop d
    h(v) = (1 - exp(-a v)) / a where v > 0, else 0

With normal priors on level, slope, pushes and drop, this is a linear regression, and the forecast a normal distribution
of ln L. Training losses, of which there are more, count as scores with a shift and a noise of their own.

N points, J places u_j, F = 5 + J features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from alm.training.curve import Curve

Floats = NDArray[np.float64]

CONFIDENCE = 0.9
FEWEST_SCORES = 2
# A score from before the sum of rates was a twentieth of today's says nothing of what comes.
_OLDEST = -3.0
_PLACES_APART = 0.15
_TABLE = 4096


@dataclass(frozen=True)
class Prior:
    """What is usual of a run, before it is seen; in logarithms of bits per byte, slopes for each e-folding of the sum.

    Fitted to the last scores of runs of benchmarks/forecast.py, forecast at several shares of them.
    """

    slope: float = 0.15
    slope_spread: float = 0.12
    exponent: float = 0.2
    push: float = 0.12  # standard deviation over one e-folding
    drop: float = 0.04
    drop_spread: float = 0.03
    wander: float = 0.006  # of a score around its curve
    last: float = 0.004  # of the last one
    shift_spread: float = 0.1
    parting: float = 0.03  # of training losses from scores, for each e-folding


PRIOR = Prior()


@dataclass(frozen=True)
class Forecast:
    """Bits per byte at the last step, and the interval that should hold it in `CONFIDENCE` of all runs."""

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
        """What `lr_factor` gives for updates 0 to `max_steps` - 1; every one of them, unless there are very many."""
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
        """The logarithm of the sum before, and the decay at, each of `steps`, which are not 0."""
        return np.log(np.interp(steps, self.steps, self.sums)), np.interp(steps, self.steps, self.decay)


def forecast(curve: Curve, schedule: Schedule, *, prior: Prior = PRIOR) -> Forecast | None:
    """The last score of the run that `curve` is the beginning of; None at its end, or where too little is known."""
    if not curve.scores or curve.score_steps[-1] >= schedule.max_steps:
        return None
    points = _points(curve, schedule, prior)
    if (points.is_loss == 0).sum() < FEWEST_SCORES:
        return None
    mean, deviation = _last(points, prior)
    reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * deviation
    return Forecast(*(round(math.exp(mean + away), 4) for away in (0, -reach, reach)))


@dataclass(frozen=True)
class _Points:
    """What is known of a curve, (N,) each: u, d, ln L, its standard error, and 1 where it is a training loss.

    `last_u` and `last_decay` are of the run's last step. u is 0 now.
    """

    u: Floats
    decay: Floats
    values: Floats
    errors: Floats
    is_loss: Floats
    last_u: float
    last_decay: float


def _points(curve: Curve, schedule: Schedule, prior: Prior) -> _Points:
    ends = np.array([curve.score_steps[-1], schedule.max_steps], dtype=np.float64)
    (now, last), (_, last_decay) = schedule.at(ends)
    scores = _placed(curve.score_steps, curve.scores, schedule, now)
    losses = _placed(curve.loss_steps, [loss * curve.bits_per_nat for loss in curve.losses], schedule, now)
    means, counts = _binned(losses)
    # Half the mean square of the differences of neighbours: batches differ by more than a curve falls between two.
    noise = math.sqrt(float(np.mean(np.diff(losses[2]) ** 2)) / 2) if losses.shape[1] > 1 else 1.0
    errors = np.append(np.full(scores.shape[1], prior.wander), np.hypot(prior.wander, noise / np.sqrt(counts)))
    is_loss = np.repeat([0.0, 1.0], [scores.shape[1], len(counts)])
    u, decay, values = np.hstack([scores, means])
    return _Points(u, decay, values, errors, is_loss, float(last - now), float(last_decay))


def _placed(steps: list[int], values: list[float], schedule: Schedule, now: float) -> Floats:
    """(3, N) u, d and logarithm of the `values` that count: after the warm-up, not too old, finite."""
    points = np.array([steps, values], dtype=np.float64)
    points = points[:, (points[0] >= max(schedule.peak_step, 1)) & np.isfinite(points[1]) & (points[1] > 0)]
    u, decay = schedule.at(points[0])
    placed = np.stack([u - now, decay, np.log(points[1])])
    return placed[:, placed[0] > _OLDEST]


def _binned(points: Floats) -> tuple[Floats, Floats]:
    """Means of `points` (3, N) that lie between the same two places, and how many each is of."""
    _, bins, counts = np.unique(np.floor(points[0] / _PLACES_APART), return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(bins, weights=row, minlength=len(counts)) for row in points])
    return sums / np.maximum(counts, 1), counts.astype(np.float64)


def _last(points: _Points, prior: Prior) -> tuple[float, float]:
    """Mean and standard deviation of ln L at the last step."""
    design, means, spreads = _regression(points, prior)
    seen, last = design[:-1] / points.errors[:, None], design[-1]  # (N, F), (F,)
    precision = seen.T @ seen + np.diag(spreads**-2)
    surprise = seen.T @ ((points.values - design[:-1] @ means) / points.errors)
    mean = last @ (means + np.linalg.solve(precision, surprise))
    variance = last @ np.linalg.solve(precision, last) + prior.last**2
    return float(mean), math.sqrt(float(variance))


def _regression(points: _Points, prior: Prior) -> tuple[Floats, Floats, Floats]:
    """(N + 1, F) features of the points and of the last step; (F,) prior means and standard deviations."""
    first = points.u.min()
    places = np.arange(first + _PLACES_APART, points.last_u, _PLACES_APART)
    u, decay, is_loss = np.append(points.u, points.last_u), np.append(points.decay, points.last_decay), points.is_loss
    is_loss = np.append(is_loss, 0.0)
    pushed = -_fall(u[:, None] - places, prior.exponent)
    known = [np.ones(len(u)), -_fall(u - first, prior.exponent), -decay, is_loss, is_loss * u]
    means = [float(points.values[0]), prior.slope, prior.drop, 0.0, 0.0]
    # Bits per byte are of the order of one: a level spread this wide is no prior at all.
    spreads = [10.0, prior.slope_spread, prior.drop_spread, prior.shift_spread, prior.parting]
    push = np.full(len(places), prior.push * math.sqrt(_PLACES_APART))
    return np.column_stack([*known, pushed]), np.append(means, np.zeros(len(places))), np.append(spreads, push)


def _fall(v: Floats, exponent: float) -> Floats:
    """h: how far a slope of 1 has led `v` after its beginning."""
    return -np.expm1(-exponent * np.maximum(v, 0)) / exponent
