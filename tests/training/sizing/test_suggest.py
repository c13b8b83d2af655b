"""From an amount of text and a time to a run."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from alm.config import presets
from alm.config.load import Part, load
from alm.model.count import count
from alm.training.config import MODEL_SECTIONS, TRAIN_SECTIONS, RunConfig
from alm.training.sizing import suggest
from alm.training.sizing.memory import preset_models
from alm.training.sizing.repeated_text import MOST_PASSES, regularisation
from alm.training.sizing.suggest import (
    Suggestion,
    bytes_per_token,
    sequence_for,
    suggest_at,
    tokens_per_parameter,
    vocabulary_for,
)


def rate(flops_per_second: float) -> suggest.Rate:
    return lambda model, tokens: flops_per_second / count(model).training_flops_per_token(tokens)


def suggested(seconds: float, flops_per_second: float = 6e10, **more: Any) -> Suggestion:
    return suggest_at(seconds, tokens_per_second=rate(flops_per_second), **more)


def test_tokens_per_parameter_go_through_what_was_measured_and_hoffmann() -> None:
    assert tokens_per_parameter(2e12) == pytest.approx(2)
    for flops in (6e18, 1e24):
        assert tokens_per_parameter(flops) == pytest.approx(20)
    # A straight line in logarithms: half-way between the two it is their geometric mean.
    assert tokens_per_parameter((2e12 * 6e18) ** 0.5) == pytest.approx((2 * 20) ** 0.5)


def test_vocabularies_are_about_those_that_were_found_best() -> None:
    found = {name: vocabulary_for(shape) for name, shape in preset_models().items()}
    assert found["pico"] == 8192  # docs/vocabulary.md
    assert found["1m"] == 2048
    assert list(found.values()) == sorted(found.values())
    assert vocabulary_for(preset_models()["pico"], text_bytes=500_000) == 1024
    assert vocabulary_for(preset_models()["pico"], text_bytes=10) == suggest.LEAST_VOCABULARY


def test_more_time_never_means_a_smaller_model_or_fewer_tokens() -> None:
    names = list(preset_models())
    found = [suggested(seconds) for seconds in (1, 60, 600, 6000, 60_000, 6e6, 6e8)]
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
    assert seconds == pytest.approx(1200 * suggest.STEPS_SHARE, rel=0.02)
    models = preset_models()
    larger = list(models.values())[list(models).index(found.preset) + 1].with_vocab_size(found.vocab_size)
    larger_tokens = suggest.STEPS_SHARE * 1200 * rate(6e10)(larger, found.seq_len)
    flops = larger_tokens * count(larger).training_flops_per_token(found.seq_len)
    assert larger_tokens / count(larger).total < tokens_per_parameter(flops)
    assert model.vocab_size == found.vocab_size


def test_batches_go_through_what_was_measured_and_rates_are_those_of_the_preset() -> None:
    train = load(RunConfig, [Part(presets.find("train"), TRAIN_SECTIONS)])
    for scale, sequences in ((1, 4), (3.4, 8), (11.3, 16)):  # 2 ** (1 / 0.571) = 3.4
        tokens = scale * 0.41e6 / suggest.STEPS_SHARE
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


def test_steps_of_a_short_run_are_not_so_small_that_they_cost_more_than_they_teach() -> None:
    for tokens, batch in ((15_000, 128), (60_000, 256), (205_000, 1024), (400_000, 1024)):
        micro, accumulation = suggest._split(preset_models()["500k"], 128, tokens, 1, lambda *_: True)
        assert micro * accumulation * 128 == batch


def test_batches_are_powers_of_two_sequences() -> None:
    for seconds, speed in itertools.product((60, 6000, 600_000), (1e9, 1e11, 1e14)):
        sequences = suggested(seconds, speed).config.training.sequences_per_step
        assert sequences & (sequences - 1) == 0


def test_text_that_is_seen_often_is_regularised_and_text_that_is_not_is_left_alone() -> None:
    fresh = suggested(60, text_bytes=10**9)
    assert fresh.passes < 1
    assert not any(change.startswith(("optim.", "model.dropout")) for change in fresh.overrides)
    often = suggested(600, text_bytes=10**6)
    strength = regularisation(often.passes)
    assert often.passes > 4
    assert set(strength.overrides) <= set(often.overrides)
    assert (often.config.optim.weight_decay, often.config.model.dropout) == (  # type: ignore[attr-defined]
        strength.weight_decay,
        strength.dropout,
    )


def test_text_that_is_seen_often_gets_a_larger_model_for_fewer_passes() -> None:
    much, little = (suggested(120, 2.4e10, text_bytes=size) for size in (5_000_000, 69_000))
    assert (much.preset, little.preset) == ("200k", "500k")
    assert 20 < little.passes < 50


def test_more_time_than_a_text_can_use_is_not_used() -> None:
    found = suggested(100_000, text_bytes=50_000)
    tokens = found.config.training.max_steps * found.config.training.sequences_per_step * found.seq_len
    assert tokens * bytes_per_token(found.vocab_size) <= 1.1 * MOST_PASSES * 50_000
    assert found.seconds < 100_000
    again = suggested(found.seconds, text_bytes=50_000)
    assert (again.preset, again.overrides) == (found.preset, found.overrides)
    assert suggested(100, text_bytes=10**9).seconds == 100


def test_the_flags_of_a_suggestion_give_its_configuration() -> None:
    for seconds, size in ((60, 10**9), (600, 10**6), (3000, 10**5)):
        found = suggested(seconds, text_bytes=size)
        parts = [Part(presets.find(found.preset), MODEL_SECTIONS), Part(presets.find("train"), TRAIN_SECTIONS)]
        loaded = load(RunConfig, parts, overrides=[*found.overrides, f"model.vocab_size={found.vocab_size}"])
        assert loaded.model == found.config.model
        assert loaded.optim == found.config.optim
        assert loaded.training.sequences_per_step == found.config.training.sequences_per_step


def test_a_short_text_gets_shorter_rows() -> None:
    pico = preset_models()["pico"]
    assert sequence_for(pico) == sequence_for(pico, 10**6) == 512
    found = [sequence_for(pico, size) for size in (10**6, 30_000, 10_000, 3000, 10)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == suggest.SHORTEST_ROW
    for size in (30_000, 10_000):
        assert size / bytes_per_token(512) / sequence_for(pico, size) >= suggest.FEWEST_ROWS


def test_ranks_share_the_micro_batches_of_a_step_evenly() -> None:
    for ranks, seconds in itertools.product((1, 2, 3, 8), (6, 600, 60_000)):
        training = suggested(seconds, ranks=ranks).config.training
        assert training.gradient_accumulation % ranks == 0


def test_given_steps_decide_the_passes_and_the_time() -> None:
    few, many = (suggested(600, text_bytes=10**6, steps=steps) for steps in (10, 1000))
    assert few.config.training.max_steps == 10
    assert many.passes == pytest.approx(100 * few.passes)
    assert many.seconds > 10 * few.seconds
    assert many.config.optim.weight_decay > few.config.optim.weight_decay  # type: ignore[attr-defined]
