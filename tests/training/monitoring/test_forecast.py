"""Forecasts: laws that curves made by a formula obey, and equality with a slow computation of the same posterior."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from cases import for_each

from alm import kinds
from alm.config.base import Config
from alm.optim.schedules import cosine, linear, wsd
from alm.training.monitoring.forecast import Curve, Forecast, Prior, Schedule, forecast

STEPS = 1000
CURVES: dict[str, Callable[[float], float]] = {
    "power law with an offset": lambda x: 1.2 + 6 * x**-0.5,
    "power law": lambda x: 5 * x**-0.15,
    "level": lambda x: 2.0,
}


def factor_of(config: Config, steps: int = STEPS) -> Callable[[int], float]:
    return lambda step: kinds.module_of(config).factor(config, step, max_steps=steps)


SCHEDULES = {
    "cosine": cosine.Config(warmup_steps=50),
    "wsd": wsd.Config(warmup_steps=50, decay_fraction=0.4, final_fraction=0.0),
    "linear": linear.Config(warmup_steps=50),
    "level": wsd.Config(warmup_steps=0, decay_fraction=0.01, final_fraction=1.0),
}


def sums_of(factor: Callable[[int], float], steps: int = STEPS) -> list[float]:
    """The sum of factors before each step, one by one."""
    sums = [0.0]
    for step in range(steps):
        sums.append(sums[-1] + factor(step))
    return sums


def curve_of(
    law: Callable[[float], float], factor: Callable[[int], float], *, until: int, every: int = 50, drop: float = 0.0
) -> Curve:
    """Scores that follow `law` of the sum of factors, lower by `drop` when the rate has gone."""
    sums = sums_of(factor)
    peak = max(map(factor, range(STEPS)))

    def score(step: int) -> float:
        has_peaked = any(factor(before) == peak for before in range(step))
        return law(sums[step]) - drop * (peak - factor(min(step, STEPS - 1))) if has_peaked else law(sums[step])

    rows = []
    for step in range(1, until + 1):
        if step % every == 0 or step == STEPS:
            rows.append({"step": step, "bits_per_byte": score(step), "validation_loss": 2 * score(step)})
    return Curve(rows)


@for_each("kind", SCHEDULES)
@for_each("law", CURVES)
def test_the_interval_holds_the_end_of_a_curve_that_keeps_to_the_law(kind: str, law: str) -> None:
    factor = factor_of(SCHEDULES[kind])
    drop = 0.1
    end = curve_of(CURVES[law], factor, until=STEPS, drop=drop).scores[-1]
    widths = []
    for share in (0.3, 0.5, 0.7, 0.9):
        found = forecast(curve_of(CURVES[law], factor, until=int(share * STEPS), drop=drop), Schedule.of(factor, STEPS))
        assert found is not None
        assert found.low <= end <= found.high, (share, found, end)
        assert found.low < found.value < found.high
        widths.append((found.high - found.low) / found.value)
    assert widths == sorted(widths, reverse=True)  # the nearer the end, the surer
    assert widths[-1] < 0.05


def test_a_decay_to_come_lowers_the_forecast() -> None:
    stable, decaying = (factor_of(SCHEDULES[kind]) for kind in ("level", "wsd"))
    law = CURVES["level"]
    now = curve_of(law, stable, until=500)
    level, lower = (forecast(now, Schedule.of(factor, STEPS)) for factor in (stable, decaying))
    assert level is not None
    assert lower is not None
    # Though less training is left: the curve is flat.
    assert lower.value < level.value - 0.05


def test_the_posterior_equals_one_by_sampling() -> None:
    """Importance sampling from the prior: draw curves, weigh each by how well it fits, look where they end."""
    prior = Prior(
        slope=0.2, slope_spread=0.1, exponent=0.4, push=0.05, drop=0.05, drop_spread=0.02, wander=0.05, last=0.06
    )
    factor = factor_of(SCHEDULES["wsd"])
    curve = curve_of(lambda x: 4 * x**-0.2, factor, until=300, every=100)
    found = forecast(curve, Schedule.of(factor, STEPS), prior=prior)
    assert found is not None

    draw, draws = np.random.default_rng(1), 400_000
    sums = sums_of(factor)
    u = np.log([sums[step] / sums[300] for step in (100, 200, 300, 1000)])
    grid = np.append(u[0], np.arange(u[0] + 0.15, u[-1], 0.15))
    slope = prior.slope + prior.slope_spread * draw.standard_normal(draws)
    pushes = prior.push * math.sqrt(0.15) * draw.standard_normal((draws, len(grid) - 1))
    fallen = np.zeros((draws, 4))
    for place, height in zip(grid, [slope, *pushes.T], strict=True):
        for number, at in enumerate(u):
            if at > place:  # the slope dies away as exp(-a v): summed up by small rectangles
                v = (np.arange(2000) + 0.5) * (at - place) / 2000
                fallen[:, number] += height * np.exp(-prior.exponent * v).sum() * (at - place) / 2000
    fallen[:, 3] += prior.drop + prior.drop_spread * draw.standard_normal(draws)  # the rate has gone by then
    # The level is free: its best value given the rest, which is all that a flat prior leaves.
    rest = np.array(curve.scores) + fallen[:, :3]
    misfit = ((rest - rest.mean(1, keepdims=True)) ** 2).sum(1) / prior.wander**2
    weights = np.exp(-0.5 * misfit)
    weights /= weights.sum()
    ends = rest.mean(1) - fallen[:, 3]
    mean = float(weights @ ends)
    variance = float(weights @ (ends - mean) ** 2) + prior.wander**2 / 3 + prior.last**2
    assert 1 / (weights**2).sum() > 10_000  # enough draws that fit
    assert found.value == pytest.approx(mean, abs=0.003)
    reach = 1.6449 * math.sqrt(variance)  # 90% of a normal distribution: any table
    assert found.high - found.value == pytest.approx(reach, rel=0.03)
    assert found.value - found.low == pytest.approx(reach, rel=0.03)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_schedule_is_the_sum_of_its_factors(kind: str) -> None:
    factor = factor_of(SCHEDULES[kind])
    schedule = Schedule.of(factor, STEPS)
    sums = sums_of(factor)
    steps = np.array([1.0, 49, 50, 300, 999, 1000])
    logs, decay = schedule.at(steps)
    assert np.exp(logs) == pytest.approx([sums[int(step)] for step in steps])
    assert decay[:2].tolist() == [0, 0]
    assert decay[-1] == pytest.approx(1 - factor(STEPS - 1))


def test_a_long_schedule_is_tabulated_and_hardly_differs() -> None:
    steps = 50_000
    factor = factor_of(cosine.Config(warmup_steps=1000), steps)
    logs, _ = Schedule.of(factor, steps).at(np.array([2000.0, 30_000, 50_000]))
    sums = sums_of(factor, steps)
    assert logs == pytest.approx([math.log(sums[step]) for step in (2000, 30_000, 50_000)], abs=0.005)


def test_there_is_no_forecast_before_two_scores_after_the_warm_up_nor_at_the_end() -> None:
    factor = factor_of(SCHEDULES["cosine"])
    schedule = Schedule.of(factor, STEPS)
    law = CURVES["power law"]
    assert forecast(Curve(), schedule) is None
    assert forecast(curve_of(law, factor, until=50), schedule) is None
    assert forecast(curve_of(law, factor, until=80, every=20), schedule) is not None  # at 60 and 80
    assert forecast(curve_of(law, factor, until=60, every=20), schedule) is None
    assert forecast(curve_of(law, factor, until=STEPS), schedule) is None


def test_a_score_that_is_not_finite_is_passed_over() -> None:
    schedule = Schedule.of(lambda step: 1.0, 100)
    rows = [{"step": step, "bits_per_byte": 2.0, "validation_loss": 4.0} for step in (10, 20, 30)]
    assert isinstance(forecast(Curve(rows), schedule), Forecast)
    gone = [*rows, {"step": 40, "bits_per_byte": math.nan, "validation_loss": math.nan}]
    found = forecast(Curve(gone), schedule)
    assert found is not None
    assert math.isfinite(found.value + found.low + found.high)


def test_bits_per_byte_are_not_forecast_below_zero() -> None:
    rows = [{"step": step, "bits_per_byte": 5 - step / 10, "validation_loss": 1.0} for step in (20, 30, 40, 45)]
    found = forecast(Curve(rows), Schedule.of(lambda step: 1.0, 1000))
    assert found is not None
    assert found.low == 0
