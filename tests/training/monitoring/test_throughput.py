"""Speed and use of the machine, with a clock that the test moves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders import FakeTime, run_config, write_packed

from alm.device import Choice
from alm.events import Event, Stepped
from alm.model.count import count
from alm.training.monitoring import metrics, throughput
from alm.training.monitoring.throughput import LapTime, StepTimer, Throughput
from alm.training.nonfinite import NonFiniteSteps
from alm.training.pretrain import pretrain
from alm.training.step import StepResult

CPU = Choice(torch.device("cpu"), "fp32", "", "")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(throughput, "time", fake)
    return fake


def test_a_lap_leaves_pauses_out_and_counts_waiting(clock: FakeTime) -> None:
    told: list[float] = []

    def batches() -> list[int]:
        for number in range(3):
            clock.now += 0.5
            yield number

    laps = StepTimer(step=7)
    for _ in laps.waiting(batches()):
        clock.now += 2.0
    with laps.paused(told.append):
        clock.now += 40.0
    assert laps.lap(10) == LapTime(seconds=7.5, steps=3, waited=1.5)
    assert told == [40.0]
    clock.now += 1.0
    assert laps.lap(11) == LapTime(seconds=1.0, steps=1, waited=0.0)


def test_a_reading_is_worked_out_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config(model__vocab_size=300)
    flops = count(config.model).training_flops_per_token(16)
    monkeypatch.setattr(throughput, "matmul_rate", lambda *_: flops * 1000)  # at best a thousand tokens a second
    monkeypatch.setattr(throughput, "peak_memory_bytes", lambda _: None)
    reading = Throughput(config, CPU, seq_len=16).measure(LapTime(seconds=0.8, steps=5, waited=0.2))
    # A step has 4 sequences of 16 tokens: 5 of them in 0.8 s are 400 tokens a second.
    assert reading.tokens_per_second == pytest.approx(400)
    assert reading.mfu == pytest.approx(0.4)
    assert reading.row() == {"tokens_per_second": 400.0, "step_seconds": 0.16, "mfu": 0.4, "data_wait_share": 0.25}


def test_a_rate_that_was_measured_on_a_busy_machine_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config(model__vocab_size=300)
    flops = count(config.model).training_flops_per_token(16)
    monkeypatch.setattr(throughput, "matmul_rate", lambda *_: flops * 100)
    monkeypatch.setattr(throughput, "measured_matmul_rate", lambda *_: flops * 800)
    monkeypatch.setattr(throughput, "peak_memory_bytes", lambda _: None)
    gauge = Throughput(config, CPU, seq_len=16)
    lap = LapTime(seconds=0.8, steps=5, waited=0.2)  # 400 tokens a second
    assert gauge.measure(lap).mfu == pytest.approx(0.5)
    monkeypatch.setattr(throughput, "measured_matmul_rate", None)
    assert gauge.measure(lap).mfu == pytest.approx(0.5)


def test_rows_and_events_have_it_and_nothing_waits_for_the_device_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU every value that is read makes the host wait: between log lines there may be none."""
    data, events, reads = write_packed(tmp_path)[0], list[Event](), list[int]()
    for name in ("item", "__float__", "__bool__", "__int__", "tolist", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, _counted(getattr(torch.Tensor, name), reads))

    # On a CPU nothing has to be waited for, so that there it is looked at every step whether it is finite.
    def noted(self: NonFiniteSteps, step: int, result: StepResult) -> None:
        self._unchecked.append((step, torch.stack([result.is_finite, result.overflowed])))

    monkeypatch.setattr(NonFiniteSteps, "record", noted)
    monkeypatch.setattr("alm.model.loss._is_one", lambda scale: False)
    monkeypatch.setattr("alm.training.step._update", lambda optimizer, is_finite: optimizer.step())
    seen: dict[int, int] = {}

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, Stepped):
            seen[event.step] = len(reads)

    config = run_config(
        logging__log_interval=6, training__checkpoint_interval=12, validation__interval=12, samples__prompts=[]
    )
    pretrain(config, data=data, out=tmp_path / "run", on_event=listen)
    assert seen[2] == seen[5]
    assert seen[8] == seen[11]
    assert seen[6] > seen[5]
    logged = [event for event in events if isinstance(event, Stepped) and event.loss is not None]
    assert [event.step for event in logged] == [6, 12]
    for event, row in zip(logged, (r for r in metrics.read(tmp_path / "run") if "loss" in r), strict=True):
        assert event.mfu is not None
        assert row["mfu"] == pytest.approx(event.mfu, abs=1e-4)
        assert 0 <= row["data_wait_share"] <= 1
        assert row.get("memory_bytes") == event.memory_bytes
    assert logged[0].seconds_left is not None
    assert logged[0].seconds_left > 0


def _counted(function: object, reads: list[int]) -> object:
    def call(*arguments: object, **keywords: object) -> object:
        reads.append(1)
        return function(*arguments, **keywords)  # type: ignore[operator]

    return call
