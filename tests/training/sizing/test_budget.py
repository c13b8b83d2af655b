"""From a time to a run."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from builders import run_config

from alm.config import presets
from alm.config.load import Part, load
from alm.errors import ConfigError
from alm.model.count import count
from alm.training.config import TRAIN_SECTIONS, RunConfig
from alm.training.monitoring.samples import sample_steps
from alm.training.sizing import budget
from alm.training.sizing.budget import Suggestion, fit_steps, suggest_at, tokens_per_parameter, vocabulary_for
from alm.training.sizing.eta import TimeCosts, pauses_left, time_costs
from alm.training.sizing.memory import preset_models
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


@pytest.mark.parametrize("seconds", [30, 120, 1200, 100_000])
@pytest.mark.parametrize(
    "costs", [TimeCosts(5, STEP, 1, 0.5, 0.2), TimeCosts(0, STEP, 0, 0, 0.01), TimeCosts(3, STEP, 90, 60, 40)]
)
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


def test_no_step_in_the_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="10 seconds allow no step: one takes 50.0 seconds") as caught:
        fit_steps(config(), TimeCosts(1, 50, 0, 0, 0), seconds=10)
    assert "--model 1m" in str(caught.value.hint)


def test_a_time_that_is_over_before_the_first_step_is_not_the_models_fault() -> None:
    with pytest.raises(ConfigError, match="took all of the time") as caught:
        fit_steps(config(), TimeCosts(1, STEP, 0, 0, 0), seconds=-3)
    assert "more time" not in str(caught.value.message)
    assert "less busy" in str(caught.value.hint)


def test_one_step_is_a_run_too_where_the_decay_had_a_fixed_end() -> None:
    found = fit_steps(config(scheduler__total_steps=20, scheduler__warmup_steps=2), TimeCosts(0, 1, 0, 0, 0), seconds=1)
    assert (found.training.max_steps, found.scheduler.total_steps) == (1, 1)  # type: ignore[attr-defined]


# What to train


def rate(flops_per_second: float) -> budget.Rate:
    return lambda model, tokens: flops_per_second / count(model).training_flops_per_token(tokens)


def suggested(seconds: float, flops_per_second: float = 6e10, **more: Any) -> Suggestion:
    return suggest_at(seconds, tokens_per_second=rate(flops_per_second), **more)


def test_tokens_per_parameter_go_through_what_was_measured_and_hoffmann() -> None:
    assert tokens_per_parameter(6.4e12) == pytest.approx(0.45)  # the quickstart
    for flops in (6e18, 1e24):
        assert tokens_per_parameter(flops) == pytest.approx(20)
    # A straight line in logarithms: half-way between the two it is their geometric mean.
    assert tokens_per_parameter((6.4e12 * 6e18) ** 0.5) == pytest.approx((0.45 * 20) ** 0.5)


def test_vocabularies_are_about_those_that_were_found_best() -> None:
    found = {name: vocabulary_for(shape) for name, shape in preset_models().items()}
    assert found["pico"] == 8192  # docs/vocabulary.md
    assert found["1m"] == 2048
    assert list(found.values()) == sorted(found.values())
    assert vocabulary_for(preset_models()["pico"], text_bytes=1_500_000) == 1024
    assert vocabulary_for(preset_models()["pico"], text_bytes=10) == budget.LEAST_VOCABULARY


def test_more_time_never_means_a_smaller_model_or_fewer_tokens() -> None:
    names = list(preset_models())
    found = [suggested(seconds) for seconds in (60, 600, 6000, 60_000, 6e6, 6e8)]
    sizes = [names.index(one.preset) for one in found]
    assert sizes == sorted(sizes)
    assert sizes[0] == 0
    assert sizes[-1] > 4
    tokens = [one.config.training.max_steps * one.config.training.sequences_per_step * one.seq_len for one in found]
    assert tokens == sorted(tokens)


def test_a_proposal_is_worth_its_time_and_is_what_its_flags_say() -> None:
    found = suggested(1200)
    model, training = found.config.model, found.config.training
    tokens = training.max_steps * training.sequences_per_step * found.seq_len
    seconds = tokens / rate(6e10)(model, found.seq_len)
    assert seconds == pytest.approx(1200 * budget.STEPS_SHARE, rel=0.02)
    models = preset_models()
    larger = list(models.values())[list(models).index(found.preset) + 1].with_vocab_size(found.vocab_size)
    larger_tokens = budget.STEPS_SHARE * 1200 * rate(6e10)(larger, found.seq_len)
    flops = larger_tokens * count(larger).training_flops_per_token(found.seq_len)
    assert larger_tokens / count(larger).total < tokens_per_parameter(flops)
    assert model.vocab_size == found.vocab_size


def test_batches_go_through_what_was_measured_and_rates_are_those_of_the_preset() -> None:
    train = load(RunConfig, [Part(presets.find("train"), TRAIN_SECTIONS)])
    for scale, sequences in ((1, 4), (3.4, 8), (11.3, 16)):  # 2 ** (1 / 0.571) = 3.4
        tokens = scale * 0.41e6 / budget.STEPS_SHARE
        found = suggest_at(
            1.0, tokens_per_second=lambda *_, t=tokens: t, models={"1m": preset_models()["1m"]}, seq_len=256
        )
        assert found.config.training.sequences_per_step == sequences
        assert found.config.optim == train.optim


def test_what_is_fixed_stays_and_memory_limits_both() -> None:
    free = suggested(6e6)
    fixed = suggested(6e6, vocab_size=300, seq_len=64)
    assert (fixed.vocab_size, fixed.seq_len, fixed.config.model.vocab_size) == (300, 64, 300)

    def fits(model: Any, sequences: int, tokens: int) -> bool:
        return bool(model.d_model <= 320 and sequences <= 4)

    long = suggested(60, seq_len=2048)
    assert long.config.model.max_position_embeddings == 2048
    assert "model.max_position_embeddings=2048" in long.overrides

    small = suggested(6e6, fits=fits)
    assert (small.preset, small.config.training.micro_batch_size) == ("10m", 4)
    assert small.config.training.gradient_accumulation > 1
    little = suggested(6e6, text_bytes=10**7)
    assert count(little.config.model).total < count(free.config.model).total


def test_batches_are_powers_of_two_sequences() -> None:
    for seconds, speed in itertools.product((60, 6000, 600_000), (1e9, 1e11, 1e14)):
        sequences = suggested(seconds, speed).config.training.sequences_per_step
        assert sequences & (sequences - 1) == 0
