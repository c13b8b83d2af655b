"""What a probe measures, on a clock that stands still between the calls."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from builders import FakeTime, run_config

from alm import device
from alm.device import Choice
from alm.training import step
from alm.training.config import RunConfig
from alm.training.sizing import probe
from alm.training.sizing.probe import StepTimings, measure_steps, random_rows

CPU = Choice(torch.device("cpu"), "fp32", "", "")
SECONDS_PER_SEQUENCE, SECONDS_PER_UPDATE = 0.01, 0.004


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """Each sequence and each update takes its time; the first few of all take much longer."""
    clock, real_backward, real_update = FakeTime(), step._backward, step._update
    seen = [0]

    def backward(state: Any, batch: Any, **keywords: Any) -> Any:
        seen[0] += 1
        clock.now += SECONDS_PER_SEQUENCE * len(batch.inputs) + (5.0 if seen[0] == 1 else 0.0)
        return real_backward(state, batch, **keywords)

    def update(*arguments: Any) -> None:
        clock.now += SECONDS_PER_UPDATE
        real_update(*arguments)

    monkeypatch.setattr(probe, "time", clock)
    monkeypatch.setattr(step, "_backward", backward)
    monkeypatch.setattr(step, "_update", update)
    monkeypatch.setattr(device, "matmul_rate", lambda *_: 1.0)
    return clock


def measured(config: RunConfig, **more: Any) -> StepTimings:
    return measure_steps(config, CPU, random_rows(300, seq_len=16), seq_len=16, **more)


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("seconds", [2.0, 0.02])  # time for whole micro-batches, and for one sequence at a time
def test_a_step_costs_its_micro_batches_and_an_update(clock: FakeTime, number: int, seconds: float) -> None:
    config = run_config(model__vocab_size=300, training__micro_batch_size=6, training__gradient_accumulation=number)
    timings = measured(config, seconds=seconds)
    assert timings.step(number) == pytest.approx(number * 6 * SECONDS_PER_SEQUENCE + SECONDS_PER_UPDATE)


def test_one_micro_batch_is_told_apart_from_the_update_when_asked(clock: FakeTime) -> None:
    config = run_config(model__vocab_size=300, training__micro_batch_size=6, training__gradient_accumulation=1)
    together, apart = measured(config), measured(config, apart=True)
    assert (together.micro_batch, together.update) == (pytest.approx(0.06 + SECONDS_PER_UPDATE), 0.0)
    assert (apart.micro_batch, apart.update) == (pytest.approx(0.06), pytest.approx(SECONDS_PER_UPDATE))


def test_one_slow_round_does_not_count(clock: FakeTime, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, seen = step._update, [0]

    def update(*arguments: Any) -> None:
        seen[0] += 1
        clock.now += 9.0 if seen[0] == 6 else 0.0
        slow(*arguments)

    monkeypatch.setattr(step, "_update", update)
    config = run_config(model__vocab_size=300, training__micro_batch_size=1, training__gradient_accumulation=1)
    assert measured(config).step(1) == pytest.approx(SECONDS_PER_SEQUENCE + SECONDS_PER_UPDATE)


def test_nothing_is_left_of_it(clock: FakeTime, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Any]] = []
    real: Callable[..., Any] = probe.init_state

    def init_state(*arguments: Any, **keywords: Any) -> Any:
        state = real(*arguments, **keywords)
        made.append(weakref.ref(state.model))
        return state

    monkeypatch.setattr(probe, "init_state", init_state)
    gc.disable()
    try:
        before = torch.get_rng_state()
        measured(run_config(model__vocab_size=300, model__dropout=0.2))
        assert made[0]() is None
        assert torch.equal(torch.get_rng_state(), before)
    finally:
        gc.enable()


def test_what_a_run_does_not_do_costs_nothing(clock: FakeTime) -> None:
    assert measured(run_config(model__vocab_size=300, samples__prompts=[])).generated_token == 0


def test_whether_a_rank_has_the_memory_is_tried_with_all_of_a_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    real = step._backward
    sizes = []

    def backward(state: Any, batch: Any, **keywords: Any) -> Any:
        sizes.append(len(batch.inputs))
        if len(batch.inputs) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(state, batch, **keywords)

    monkeypatch.setattr(step, "_backward", backward)
    for size, expected in ((3, True), (4, False)):
        config = run_config(model__vocab_size=300, training__micro_batch_size=size)
        assert probe.fits(config, CPU, random_rows(300, seq_len=16), seq_len=16) is expected
    assert sizes == [3, 3, 3, 4]
    monkeypatch.setattr(step, "_backward", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("shapes do not fit")))
    with pytest.raises(RuntimeError, match="shapes"):
        probe.fits(config, CPU, random_rows(300, seq_len=16), seq_len=16)
