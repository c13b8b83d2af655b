"""From a time to a run."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from builders import run_config
from cases import for_each

from alm.errors import ConfigError
from alm.training.config import RunConfig
from alm.training.monitoring.samples import sample_steps
from alm.training.sizing import budget
from alm.training.sizing.budget import fit_steps
from alm.training.sizing.eta import TimeCosts, pauses_left, time_costs
from alm.training.sizing.probe import StepTimings

STEP = 0.5


def config(**changes: Any) -> RunConfig:
    """1,000 steps, of which 100 warm up, with ten validations and five checkpoints."""
    values = {
        "training__max_steps": 1000,
        "training__checkpoint_interval": 200,
        "scheduler__warmup_steps": 100,
        "validation__interval": 100,
        "validation__bytes": 1_000_000,
        "samples__count": 8,
        "samples__prompts": "auto",
        "samples__max_tokens": 6,
        "logging__log_interval": 10,
    }
    return run_config(model__vocab_size=300, **{**values, **changes})


def test_what_a_run_costs_is_the_sum_of_what_it_does() -> None:
    timings = StepTimings(micro_batch=2.0, update=0.5, validation_sequence=0.01, generated_token=0.1)
    found = time_costs(config(), timings, validation_sequences=30, start=7.0)
    # Two micro-batches a step; 30 sequences; four prompts of a token's worth and 6 tokens each.
    assert (found.step, found.validation, found.samples) == pytest.approx((4.5, 0.3, 2.8))
    assert time_costs(config(), timings, validation_sequences=30, start=7.0, ranks=2).step == 2.5
    spent = found.by_part(config())
    assert spent["steps"] == 4500
    assert spent["validation"] == pytest.approx(10 * 0.3)
    assert spent["samples"] == pytest.approx(8 * 2.8)
    assert spent["checkpoints"] == pytest.approx(5 * found.saving)
    assert spent["start"] == 7.0
    silent = config(samples__prompts=[])
    assert time_costs(silent, timings, validation_sequences=30, start=7.0).by_part(silent)["samples"] == 0


def test_what_is_due_at_intervals_and_at_the_end_is_counted() -> None:
    for max_steps, interval in itertools.product((1, 7, 12, 40), (1, 3, 4, 12, 50)):
        wanted = config(training__max_steps=max_steps, training__checkpoint_interval=interval,
                        scheduler__warmup_steps=0, validation__interval=interval, samples__count=5)  # fmt: skip
        due = [step for step in range(1, max_steps + 1) if step % interval == 0 or step == max_steps]
        for step in range(max_steps + 1):
            left = sum(later > step for later in due)
            found = pauses_left(wanted, after=step)
            assert (found["validation"], found["saving"]) == (left, left), (max_steps, interval, step)
            assert found["samples"] == sum(later > step for later in sample_steps(max_steps, 5))
        assert pauses_left(wanted) == pauses_left(wanted, after=0)


@for_each("seconds", [30, 120, 1200, 100_000])
@for_each("costs", [TimeCosts(5, STEP, 1, 0.5, 0.2), TimeCosts(0, STEP, 0, 0, 0.01), TimeCosts(3, STEP, 90, 60, 40)])
def test_the_time_is_used_and_not_exceeded(seconds: float, costs: TimeCosts) -> None:
    """But for a single one of what is dearer than its share and has to be done once."""
    found = fit_steps(config(validation__bytes=20_000), costs, seconds=max(seconds, 600 if costs.validation > 1 else 0))
    total = sum(costs.by_part(found).values())
    allowed = max(seconds, 600 if costs.validation > 1 else 0)
    assert total <= allowed
    # Rounding intervals up may leave one of each undone.
    assert total > allowed - STEP - costs.validation - costs.samples - costs.saving


def test_what_is_counted_in_steps_keeps_its_proportion() -> None:
    found = fit_steps(config(training__keep_every=500), TimeCosts(0, STEP, 0, 0, 0), seconds=2000 * STEP + 0.1)
    assert found.training.max_steps == 2000
    assert found.scheduler.warmup_steps == 200  # type: ignore[attr-defined]
    assert (found.validation.interval, found.training.checkpoint_interval, found.training.keep_every) == (
        200,
        400,
        1000,
    )
    assert (found.samples.count, found.logging.log_interval, found.validation.bytes) == (8, 10, 1_000_000)
    few = fit_steps(config(), TimeCosts(0, STEP, 0, 0, 0), seconds=40 * STEP + 0.1)
    assert (few.training.max_steps, few.validation.interval, few.logging.log_interval) == (40, 4, 2)
    assert few.scheduler.warmup_steps == 4  # type: ignore[attr-defined]


def test_dear_validations_are_fewer_then_shorter_and_a_long_run_is_saved_every_half_hour() -> None:
    dear = fit_steps(config(), TimeCosts(0, STEP, 5, 0, 0), seconds=200)
    assert -(-dear.training.max_steps // dear.validation.interval) == 4  # a tenth of 200 s
    assert dear.validation.bytes == 1_000_000
    dearest = fit_steps(config(), TimeCosts(0, STEP, 100, 0, 0), seconds=200)
    assert dearest.validation.interval == dearest.training.max_steps
    assert dearest.validation.bytes == 200_000  # 20 of 100 s
    long = fit_steps(config(), TimeCosts(0, STEP, 0, 0, 0), seconds=36_000)
    assert long.training.checkpoint_interval * STEP == pytest.approx(1800, abs=STEP)


def test_a_time_in_which_nothing_is_learned_is_refused_with_the_least_that_makes_sense() -> None:
    with pytest.raises(ConfigError, match="10 seconds are too short .* 20 steps take 1,000.0 seconds") as caught:
        fit_steps(config(), TimeCosts(1, 50, 0, 0, 0), seconds=8, spent=2)
    assert "`--budget 21m`" in str(caught.value.hint)  # 1,003 seconds, and a fifth more
    least = fit_steps(config(), TimeCosts(1, 50, 0, 0, 0), seconds=21 * 60 - 2, spent=2)
    assert least.training.max_steps >= budget.FEWEST_STEPS


@pytest.mark.parametrize("seconds", [-3.0, 0.0])
def test_a_time_that_is_over_before_the_first_step_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="too short") as caught:
        fit_steps(config(), TimeCosts(1, STEP, 0, 0, 0), seconds=seconds, spent=30)
    assert "`--budget 50s`" in str(caught.value.hint)


def test_a_short_run_too_has_a_decay_where_that_had_a_fixed_end() -> None:
    cut = config(scheduler__total_steps=20, scheduler__warmup_steps=2)
    found = fit_steps(cut, TimeCosts(0, 1, 0, 0, 0), seconds=20)
    assert (found.training.max_steps, found.scheduler.total_steps) == (20, 1)  # type: ignore[attr-defined]
