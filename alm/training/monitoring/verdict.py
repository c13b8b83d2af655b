"""Judges in plain words whether a run goes well, from its curve, a reference and a forecast."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

from alm.events import Judged
from alm.training.monitoring import metrics
from alm.training.monitoring.forecast import Curve, Forecast, Schedule, forecast
from alm.training.monitoring.metrics import Row
from alm.training.monitoring.reference import Reference

# Losses that rise in the warm-up often recover by themselves within this many lengths of it.
WARM_UPS = 2
# From there on, scores of healthy runs rise above their best by a tenth of this at most (docs/benchmarks.md) ...
DIVERGED = 0.05
# ... and by more than this only once in a while: the same rows are scored each time.
WOBBLE = 0.003
# This many scores in a row above the best are more than a wobble.
RISES = 2
# Smaller differences from a reference do not matter, and other processors round differently.
TOLERANCE = 0.01
# A run has stopped improving after this many validations, over this share of it, without a better score.
FLAT_SCORES, FLAT_SHARE = 3, 0.15
# A run can only get worse when this many scores in a row are above the best by this much, while the learning rate
# decays; before that the decay may still bring the score down, from less than the second share (docs/log.md).
WORSE_SCORES, WORSE, WORSE_BEFORE_DECAY = 3, 0.05, 0.1
OVERFITTING = "overfitting"
# Steps skipped since the last validation: a healthy run has none.
SKIPPED_SHARE = 0.02


class RunMonitor:
    """Verdicts on one run, each a function of its configuration and of the rows of metrics up to it."""

    def __init__(
        self,
        max_steps: int,
        lr_factor: Callable[[int], float],
        reference: Reference | None,
        *,
        keeps_best: bool = False,
    ) -> None:
        self._max_steps = max_steps
        self._keeps_best = keeps_best
        self._schedule = Schedule.of(lr_factor, max_steps)
        self._reference = reference
        self._curve = Curve()

    def catch_up(self, rows: Iterable[Row]) -> None:
        """Start again from the existing rows."""
        self._curve = Curve(rows)

    def add(self, row: Row) -> None:
        """Add a row that was written."""
        self._curve.add(row)

    def assess(self, row: Row) -> Judged:
        """Add the row of a validation and return its verdict."""
        self.add(row)
        found = forecast(self._curve, self._schedule)
        words = verdict(
            self._curve,
            max_steps=self._max_steps,
            warm_up=self._schedule.peak_step + 1,
            reference=self._reference,
            forecast=found,
            keeps_best=self._keeps_best,
        )
        if found is None or words.startswith(OVERFITTING):  # its curve is not that of a run that overfits
            return Judged(row["step"], self._max_steps, words)
        return Judged(row["step"], self._max_steps, words, found.value, found.low, found.high)

    def can_only_get_worse(self, step: int, *, after: int = 0) -> str | None:
        """Return why the run should stop at `step`, None if it should not, or has not been scored there."""
        return can_only_get_worse(self._curve, step, after=after)


def verdict_fields(judged: Judged) -> Row:
    """Return the fields of `judged` for a row of metrics."""
    if judged.forecast is None:
        return {"verdict": judged.verdict}
    return {
        "verdict": judged.verdict,
        "forecast": judged.forecast,
        "forecast_low": judged.low,
        "forecast_high": judged.high,
    }


def verdict(
    curve: Curve,
    *,
    max_steps: int,
    warm_up: int = 0,
    reference: Reference | None = None,
    forecast: Forecast | None = None,
    keeps_best: bool = False,
) -> str:
    """Return the worst verdict that holds for the newest score; `warm_up` counts the steps up to the peak rate."""
    is_settled = curve.score_steps[-1] > WARM_UPS * warm_up
    return (
        ("diverging: the held-out loss is not finite; lower `optim.lr`" if math.isinf(curve.scores[-1]) else None)
        or _skipping(curve)
        or (_diverging(curve) if is_settled else None)
        or (_overfitting(curve, keeps_best=keeps_best) if is_settled else None)
        or _compared(curve, reference)
        or _finished(curve, max_steps)
        or _flat(curve, max_steps, forecast)
        or ("still falling" if forecast is not None else "too early for a forecast")
    )


def _skipping(curve: Curve) -> str | None:
    before, since = (curve.skipped[-2], curve.score_steps[-2]) if len(curve.scores) > 1 else (0, 0)
    skipped, steps = curve.skipped[-1] - before, curve.score_steps[-1] - since
    if skipped <= SKIPPED_SHARE * steps:
        return None
    return f"diverging: {skipped} of the last {steps} steps were skipped, as not finite; lower `optim.lr`"


def _diverging(curve: Curve) -> str | None:
    """Held-out and training loss have risen together; or, at the first score, the training loss above its start."""
    best = _best(curve)
    before, now = _training_losses(curve, best)
    if not before or not now:
        return None
    was, at, risen_to = statistics.fmean(before), curve.score_steps[best], statistics.fmean(now)
    if len(curve.scores) == 1:
        was, at = curve.losses[0], curve.loss_steps[0]
        has_risen = risen_to > (1 + DIVERGED) * was
    else:
        is_worse = curve.scores[-1] > (1 + DIVERGED) * curve.scores[best]
        has_risen = is_worse and risen_to - was > 2 * _standard_error(before, now)
    if not has_risen:
        return None
    return f"diverging: the training loss rose from {was:.3f} at step {at} to {risen_to:.3f}; lower `optim.lr`"


def _overfitting(curve: Curve, *, keeps_best: bool) -> str | None:
    """The held-out loss rises while the training loss falls."""
    if not _rises(curve, scores=RISES, share=WOBBLE):
        return None
    remedy = f"the best checkpoint, step {_best_step(curve)}, is kept" if keeps_best else "more text, or fewer steps"
    return f"{OVERFITTING}: {_risen(curve)} while the training loss falls; {remedy}"


def can_only_get_worse(curve: Curve, step: int, *, after: int = 0) -> str | None:
    """Return why a run with this `curve` should stop at `step`, its newest score; None if it should not.

    Scores up to the step `after` are only compared with: the run has stopped there before, and was asked for more.
    """
    scores = curve.scores[-WORSE_SCORES:]
    if curve.score_steps[-1:] != [step] or curve.score_steps[-len(scores)] <= after:
        return None
    share = WORSE if curve.lr < curve.peak_lr else WORSE_BEFORE_DECAY
    if not _rises(curve, scores=WORSE_SCORES, share=share) or scores[-1] < scores[0]:
        return None
    return f"{_risen(curve)}, and can only get worse"


def why_worse(run: Path, step: int, *, after: int = 0) -> str | None:
    """Return why the run in the folder `run` should stop at `step`, from its rows up to there."""
    curve = Curve(row for row in metrics.read(run) if row["step"] <= step)
    return can_only_get_worse(curve, step, after=after)


def _rises(curve: Curve, *, scores: int, share: float) -> bool:
    """Whether the last `scores` are above the best by this `share` of it, while the training loss falls."""
    best = _best(curve)
    if len(curve.scores) - 1 - best < scores or min(curve.scores[-scores:]) <= (1 + share) * curve.scores[best]:
        return False
    before, now = _training_losses(curve, best)
    return bool(before and now) and statistics.fmean(now) < statistics.fmean(before)


def _risen(curve: Curve) -> str:
    best = curve.scores[_best(curve)]
    return f"held-out text rose from {best:.3f} bits/byte at step {_best_step(curve)} to {curve.scores[-1]:.3f}"


def _best_step(curve: Curve) -> int:
    return curve.score_steps[_best(curve)]


def _compared(curve: Curve, reference: Reference | None) -> str | None:
    step, score = curve.score_steps[-1], curve.scores[-1]
    point = None if reference is None else reference.at(step)
    if reference is None or point is None:
        return None
    low, high = min(point.low, (1 - TOLERANCE) * point.mean), max(point.high, (1 + TOLERANCE) * point.mean)
    usual = f"{low:.3f} to {high:.3f}"
    if score > high:
        advice = f"compare `optim` with `alm config show {reference.preset}`"
        return f"behind the reference by {score - point.mean:.3f}: {score:.3f} bits/byte, not {usual}; {advice}"
    if score < low:
        return f"ahead of the reference by {point.mean - score:.3f}: {score:.3f} bits/byte, not {usual}"
    return f"on track: {score:.3f} bits/byte, reference {usual}"


def _finished(curve: Curve, max_steps: int) -> str | None:
    return f"finished: {curve.scores[-1]:.3f} bits/byte" if curve.score_steps[-1] >= max_steps else None


def _flat(curve: Curve, max_steps: int, forecast: Forecast | None) -> str | None:
    """The score has not improved for a while, and the forecast is not better."""
    best, step = _best(curve), curve.score_steps[-1]
    long_ago = [
        number
        for number, score in enumerate(curve.scores[:-FLAT_SCORES])
        if score <= (1 + WOBBLE) * curve.scores[best] and step - curve.score_steps[number] >= FLAT_SHARE * max_steps
    ]
    if not long_ago or forecast is None or forecast.value < (1 - TOLERANCE) * curve.scores[-1]:
        return None
    before, since = curve.scores[long_ago[0]], curve.score_steps[long_ago[0]]
    return f"has stopped improving: {curve.scores[-1]:.3f} bits/byte, {before:.3f} at step {since}"


def _best(curve: Curve) -> int:
    return min(range(len(curve.scores)), key=curve.scores.__getitem__)


def _training_losses(curve: Curve, best: int) -> tuple[list[float], list[float]]:
    """Return the training losses of the interval before the best score, and before the newest."""
    return curve.losses_before(best), curve.losses_before(len(curve.scores) - 1)


def _standard_error(*groups: list[float]) -> float:
    """Return the standard error of the difference of the groups' means."""
    return math.sqrt(sum(statistics.variance(group) / len(group) for group in groups if len(group) > 1))
