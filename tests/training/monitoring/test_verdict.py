"""Verdicts on curves made by hand: each word has one that earns it, and healthy ones earn none."""

from __future__ import annotations

import math
from typing import Any

import pytest
from cases import for_each

from alm.artifacts import Values
from alm.training.monitoring.forecast import Curve, Forecast
from alm.training.monitoring.reference import Point, Reference
from alm.training.monitoring.verdict import RunMonitor, can_only_get_worse, verdict, verdict_fields

# (step, bits per byte, training losses since the score before)
Scores = list[tuple[int, float, list[float]]]
HEALTHY: Scores = [
    (100, 3.0, [6.0, 5.5]),
    (200, 2.5, [4.9, 4.7]),
    (300, 2.3, [4.4, 4.5]),
    (400, 2.2, [4.3, 4.2]),
    (500, 2.15, [4.2, 4.1]),
]


def rows_of(scores: Scores, *, skipped: dict[int, int] | None = None) -> list[Values]:
    """Rows of metrics: the losses at equal distances up to each score; `skipped_steps` from given steps on."""
    rows: list[Values] = []
    before = 0
    for step, bits, losses in scores:
        for number, loss in enumerate(losses, start=1):
            at = before + (step - before) * number // len(losses)
            count = max((n for since, n in (skipped or {}).items() if since <= at), default=0)
            rows.append({"step": at, "loss": loss, "skipped_steps": count})
        rows.append({"step": step, "validation_loss": 2 * bits, "bits_per_byte": bits})
        before = step
    return rows


def said(scores: Scores, *, max_steps: int = 1000, **given: Any) -> str:
    return verdict(Curve(rows_of(scores)), max_steps=max_steps, **given)


def reference(*points: tuple[int, float, float, float]) -> Reference:
    return Reference(
        config={},
        preset="nano",
        data_sha256="",
        seeds=(1, 2, 3),
        points=tuple(Point(step=s, mean=m, low=low, high=high) for s, m, low, high in points),
    )


def test_before_a_forecast_is_possible_nothing_is_promised() -> None:
    assert said(HEALTHY[:1]) == "too early for a forecast"


def test_a_healthy_curve_is_still_falling_and_in_the_end_finished() -> None:
    for count in range(1, len(HEALTHY) + 1):
        assert said(HEALTHY[:count], forecast=Forecast(2.0, 1.9, 2.1)) == "still falling"
    assert said(HEALTHY, max_steps=500) == "finished: 2.150 bits/byte"


BAND = reference((100, 3.0, 2.8, 3.2), (400, 2.0, 1.9, 2.1))


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (2.45, "on track: 2.450 bits/byte, reference 2.350 to 2.650"),
        (2.70, "behind the reference by 0.200: 2.700 bits/byte, not 2.350 to 2.650; compare `optim` with "
               "`alm config show nano`"),
        (2.30, "ahead of the reference by 0.200: 2.300 bits/byte, not 2.350 to 2.650"),
    ],
)  # fmt: skip
def test_a_run_is_held_against_the_band_between_two_points_of_its_reference(score: float, words: str) -> None:
    # Half way in the logarithm of the step between 100 and 400.
    assert said([(200, score, [5.0])], reference=BAND) == words


def test_a_band_narrower_than_anybody_cares_for_is_widened() -> None:
    narrow = reference((100, 2.0, 1.999, 2.001))
    assert said([(100, 2.019, [5.0])], reference=narrow) == "on track: 2.019 bits/byte, reference 1.980 to 2.020"
    assert said([(100, 2.021, [5.0])], reference=narrow).startswith("behind")


def test_outside_the_steps_of_the_reference_there_is_no_comparison() -> None:
    assert said([(99, 9.0, [5.0])], reference=BAND) == said([(401, 9.0, [5.0])], reference=BAND)
    assert said([(401, 9.0, [5.0])], reference=BAND) == "too early for a forecast"


DIVERGED: Scores = [*HEALTHY[:3], (400, 2.5, [4.9, 5.0])]


def test_a_loss_that_rises_everywhere_diverges() -> None:
    words = "diverging: the training loss rose from 4.450 at step 300 to 4.950; lower `optim.lr`"
    assert said(DIVERGED) == words
    assert said(DIVERGED, reference=reference((1, 2.5, 2.4, 2.6), (999, 2.5, 2.4, 2.6))) == words


def test_until_twice_the_warm_up_a_rise_is_passed_over() -> None:
    for scores in (DIVERGED, [*OVERFITTED[:3], (350, 2.33, [4.2]), (400, 2.35, [4.1])]):
        assert said(scores, warm_up=199) != "too early for a forecast"
        assert said(scores, warm_up=200) == "too early for a forecast"


def test_a_small_spike_and_noise_do_not_diverge() -> None:
    assert said([*HEALTHY[:3], (400, 2.4, [4.9, 5.0])]) == "too early for a forecast"  # 4% up
    assert said([*HEALTHY[:3], (400, 2.5, [4.0, 5.2])]) == "too early for a forecast"  # the losses are noisy


def test_a_loss_above_its_beginning_diverges_before_there_is_a_second_score() -> None:
    assert said([(100, 3.0, [6.0, 7.0, 8.0])]) == (
        "diverging: the training loss rose from 6.000 at step 33 to 7.000; lower `optim.lr`"
    )
    assert said([(100, 3.0, [6.0, 6.4, 6.1])]) == "too early for a forecast"
    # Later a noisy batch above the first one is nothing, as long as the scores fall.
    assert said([(100, 3.0, [6.0]), (200, 2.9, [6.5])]) == "too early for a forecast"


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_not_finite_diverges_and_forecasts_nothing_by_itself(score: float) -> None:
    scores: Scores = [*HEALTHY[:3], (400, score, [4.0])]
    assert said(scores) == "diverging: the held-out loss is not finite; lower `optim.lr`"
    judged = monitor_of(rows_of(scores)[:-1]).assess(rows_of(scores)[-1])
    assert judged.forecast is None or math.isfinite(judged.forecast)


def test_skipped_steps_diverge() -> None:
    rows = rows_of(HEALTHY[:2], skipped={150: 3})
    assert verdict(Curve(rows), max_steps=1000) == (
        "diverging: 3 of the last 100 steps were skipped, as not finite; lower `optim.lr`"
    )
    assert verdict(Curve(rows_of(HEALTHY[:2], skipped={150: 2})), max_steps=1000) == "too early for a forecast"
    # Counted from the score before: later ones are not blamed for them.
    assert verdict(Curve(rows_of(HEALTHY[:3], skipped={150: 3})), max_steps=1000) == "too early for a forecast"


OVERFITTED: Scores = [*HEALTHY[:3], (400, 2.31, [4.2, 4.1]), (500, 2.35, [4.0, 3.9])]


def test_held_out_text_that_rises_while_the_training_loss_falls_is_overfitting() -> None:
    assert said(OVERFITTED) == (
        "overfitting: held-out text rose from 2.300 bits/byte at step 300 to 2.350 while the training loss falls; "
        "more text, or fewer steps"
    )


def test_a_kept_best_checkpoint_is_named_and_nothing_is_forecast_beside_overfitting() -> None:
    assert said(OVERFITTED, keeps_best=True).endswith(
        "to 2.350 while the training loss falls; the best checkpoint, step 300, is kept"
    )
    *before, last = rows_of(OVERFITTED)
    judged = monitor_of(before).assess(last)
    assert judged.verdict.startswith("overfitting")
    assert verdict_fields(judged) == {"verdict": judged.verdict}


def test_steps_that_are_logged_less_often_than_they_are_scored_show_overfitting_too() -> None:
    rare: Scores = [(100, 2.5, [5.0]), (200, 2.3, []), (300, 2.43, [4.0]), (400, 2.5, []), (500, 2.6, [3.0])]
    assert said(rare).startswith("overfitting")
    assert why(rare, 400) is None, "the rate is at its peak"
    assert why(rare, 500, falling=True) is not None


# ---- runs that can only get worse


def why(scores: Scores, step: int, *, falling: bool = False, **given: Any) -> str | None:
    """The reason to stop at `step`; the learning rate is falling from the second score on, or at its peak."""
    rows = rows_of(scores)
    for row in rows:
        if "loss" in row:
            row["lr"] = 0.5 if falling and row["step"] > scores[1][0] else 1.0
    return can_only_get_worse(Curve(row for row in rows if row["step"] <= step), step, **given)


def risen(*scores: float, losses: tuple[float, ...] = (5, 4.5, 4.0, 3.5, 3.0, 2.5, 2.0)) -> Scores:
    """Scores every 100 steps, and falling training losses."""
    return [(100 * n, score, [loss]) for n, (score, loss) in enumerate(zip(scores, losses, strict=False), 1)]


def test_a_run_far_above_its_best_stops_and_says_why() -> None:
    scores = risen(3.0, 2.0, 2.3, 2.4, 2.5)
    assert [why(scores, step) is not None for step in (100, 200, 300, 400, 500)] == [False] * 4 + [True]
    assert why(scores, 500) == ("held-out text rose from 2.000 bits/byte at step 200 to 2.500, and can only get worse")
    assert why(scores, 499) is None, "only where it is scored"


@for_each(
    "scores, at_peak, in_decay",
    [
        (risen(3.0, 2.0, 2.12, 2.14, 2.16), False, True),  # 6% above: the decay may still bring it down
        (risen(3.0, 2.0, 2.09, 2.14, 2.16), False, False),  # one of them is less than 5% above
        (risen(3.0, 2.0, 2.5, 2.4, 2.3), False, False),  # it falls again
        (risen(3.0, 2.0, 2.5, 2.6), False, False),  # two scores are too few
        (risen(3.0, 2.0, 2.3, 2.4, 2.5, losses=(5, 4, 4.1, 4.2, 4.3)), False, False),  # the training loss rises too
        (risen(3.0, 2.0, 2.3, 1.9, 2.5, 2.6), False, False),  # a new best counts from there
        (risen(3.0, 2.5, 2.4, 2.3, 2.2), False, False),
    ],
)
def test_a_run_that_may_get_better_goes_on(scores: Scores, *, at_peak: bool, in_decay: bool) -> None:
    last = scores[-1][0]
    assert (why(scores, last) is not None, why(scores, last, falling=True) is not None) == (at_peak, in_decay)


def test_scores_from_before_a_run_was_asked_for_more_are_only_compared_with() -> None:
    scores = risen(3.0, 2.0, 2.3, 2.4, 2.5, 2.6, 2.7)
    assert [why(scores, step, after=400) is not None for step in (500, 600, 700)] == [False, False, True]


def test_one_rise_is_not_overfitting_nor_is_a_wobble_or_a_training_loss_that_does_not_fall() -> None:
    assert said(OVERFITTED[:4]) == "too early for a forecast"
    wobble: Scores = [*HEALTHY[:3], (400, 2.302, [4.2, 4.1]), (500, 2.301, [4.0, 3.9])]
    assert said(wobble) == "too early for a forecast"
    assert said([*HEALTHY[:3], (400, 2.31, [4.5, 4.5]), (500, 2.35, [4.5, 4.6])]) == "too early for a forecast"


FLAT: Scores = [*HEALTHY, *((step, 2.149, [4.15, 4.2]) for step in (600, 700, 800))]


def test_a_curve_that_stands_still_has_stopped_improving() -> None:
    level = Forecast(2.14, 2.13, 2.15)
    assert said(FLAT, forecast=level) == "has stopped improving: 2.149 bits/byte, 2.150 at step 500"
    assert said(FLAT[:-1], forecast=level) == "still falling"  # two scores in a row
    assert said(FLAT, forecast=Forecast(2.05, 2.0, 2.1)) == "still falling"  # the rate has yet to decay
    assert said(FLAT, forecast=level, max_steps=2001) == "still falling"  # 300 steps of 2,001 are no time


def monitor_of(rows: list[Values], **given: Any) -> RunMonitor:
    monitor = RunMonitor(1000, lambda step: 1.0, None, **given)
    monitor.catch_up(rows)
    return monitor


def test_a_judge_that_was_there_all_along_and_one_that_read_the_rows_agree() -> None:
    rows = rows_of([(step, 2 + 100 / step, [4 + 200 / step] * 3) for step in range(100, 900, 100)])
    there = monitor_of([])
    for row in rows[:-1]:
        there.add(row)
    assert there.assess(rows[-1]) == monitor_of(rows[:-1]).assess(rows[-1])


def test_a_judge_takes_the_warm_up_from_the_schedule() -> None:
    rows = rows_of(OVERFITTED)
    for warm_up, word in ((249, "overfitting"), (250, "still falling")):
        monitor = RunMonitor(1000, lambda step, w=warm_up: min(1.0, (step + 1) / w), None)  # type: ignore[misc]
        monitor.catch_up(rows[:-1])
        assert monitor.assess(rows[-1]).verdict.startswith(word)


def test_what_a_judge_says_is_what_the_metrics_keep() -> None:
    rows = rows_of([(step, 2 + 100 / step, [4 + 200 / step] * 3) for step in range(100, 900, 100)])
    first = monitor_of([]).assess(rows_of(HEALTHY[:1])[-1])
    assert verdict_fields(first) == {"verdict": "too early for a forecast"}
    judged = monitor_of(rows[:-1]).assess(rows[-1])
    kept = verdict_fields(judged)
    assert (judged.step, judged.max_steps, kept["verdict"]) == (800, 1000, "still falling")
    assert kept["forecast_low"] < kept["forecast"] < kept["forecast_high"]
    assert all(math.isfinite(kept[key]) for key in ("forecast", "forecast_low", "forecast_high"))
