"""A run that memory or time does not allow as it is configured is fitted, and its curve stays the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import ROUNDING, SMOOTH, run_config

from alm.checkpoint.format import LAST_NAME, numbered, step_of
from alm.checkpoint.load import load_checkpoint
from alm.device import Choice
from alm.distributed import World
from alm.errors import AlmError, ConfigError
from alm.events import Event, Noted, Resumed, Warned
from alm.packing.shards import open_packed
from alm.training import step
from alm.training.config import RunConfig
from alm.training.monitoring import metrics
from alm.training.pretrain import pretrain
from alm.training.run import fit, run_folder, time_budget
from alm.training.run.fit import DeviceLimits
from alm.training.run.resolve import with_data
from alm.training.sizing import oom_cache, probe
from alm.training.sizing.memory import USABLE_SHARE, peak_memory
from alm.training.sizing.probe import StepTimings

STEPS = 12


@pytest.fixture(scope="module")
def uncut(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    pretrain(config(), data=data, out=out)
    return out


def config(**changes: Any) -> RunConfig:
    return run_config(**{"training__micro_batch_size": 4, "training__gradient_accumulation": 1, **SMOOTH, **changes})


def with_room_for(sequences: int, *, from_step: int = 0) -> Callable[..., Any]:
    """`step._backward` on a device whose memory holds so many sequences, from a step on (counted from 0)."""
    real = step._backward

    def backward(state: Any, batch: Any, **keywords: Any) -> Any:
        if state.step >= from_step and len(batch.inputs) > sequences:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(state, batch, **keywords)

    return backward


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in metrics.read(out) if "loss" in row]


def sizes(out: Path) -> tuple[int, int]:
    training = run_folder.read_config(out).training
    return training.micro_batch_size, training.gradient_accumulation


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("room", "expected"), [(3, (2, 2)), (1, (1, 4))])
def test_a_full_memory_halves_micro_batches_and_the_curve_stays(
    data: Path, uncut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(step, "_backward", with_room_for(room))
    out, events = tmp_path / "run", list[Event]()
    finished = pretrain(config(), data=data, out=out, on_event=events.append)
    assert sizes(out) == expected
    assert finished.config["training"]["micro_batch_size"] == expected[0]
    assert losses(out) == pytest.approx(losses(uncut), rel=ROUNDING)
    said = [event.message for event in events if isinstance(event, Warned) and "is full" in event.message]
    assert said[0] == (
        "the memory of cpu is full: a step of 4 sequences is cut into micro-batches of 2 instead of 4: "
        "the same curve, but not bit for bit"
    )
    assert len(said) == {2: 1, 1: 2}[expected[0]]


@pytest.mark.slow
def test_an_odd_micro_batch_keeps_the_global_batch(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = config(training__micro_batch_size=3, training__gradient_accumulation=2, training__max_steps=4)
    pretrain(odd, data=data, out=tmp_path / "whole")
    monkeypatch.setattr(step, "_backward", with_room_for(2))
    pretrain(odd, data=data, out=tmp_path / "cut")
    assert sizes(tmp_path / "cut") == (1, 6)
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "whole"), rel=ROUNDING)


def test_later_on_it_goes_on_from_the_last_whole_step(
    data: Path, uncut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "_backward", with_room_for(2, from_step=6))
    out, events = tmp_path / "run", list[Event]()
    pretrain(config(), data=data, out=out, on_event=events.append)
    assert Resumed(out, 6, STEPS) in events
    assert sizes(out) == (2, 2)
    assert losses(out) == pytest.approx(losses(uncut), rel=ROUNDING)
    assert [row["step"] for row in metrics.read(out) if "loss" in row] == [2, 4, 6, 8, 10, 12]


@pytest.mark.slow
def test_a_resumed_run_is_fitted_too_and_older_checkpoints_count(
    data: Path, uncut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    pretrain(config(), data=data, out=out)
    monkeypatch.setattr(step, "_backward", with_room_for(2))
    pretrain(config(), data=data, out=out, resume=out / "ckpt-step000004.pt")
    assert sizes(out) == (2, 2)
    assert losses(out) == pytest.approx(losses(uncut), rel=ROUNDING)
    assert {step_of(path) for path in numbered(out)} == {4, 8, 12}


def test_a_failed_update_is_done_again_from_before(
    data: Path, uncut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moments are made in the first update: the weights may be half changed."""
    real, seen = step._update, [0]

    def update(optimizer: Any, is_finite: Any) -> None:
        real(optimizer, is_finite)
        seen[0] += 1
        if seen[0] == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(step, "_update", update)
    out = tmp_path / "run"
    pretrain(config(), data=data, out=out)
    assert losses(out) == pytest.approx(losses(uncut), rel=ROUNDING)


def test_one_sequence_that_does_not_fit_ends_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "_backward", with_room_for(0))
    with pytest.raises(
        AlmError, match="the memory of cpu is full: .* micro-batches of 1 sequences do not fit"
    ) as caught:
        pretrain(config(), data=data, out=tmp_path / "run")
    assert "--model 10m" in str(caught.value.hint)


@pytest.mark.slow
def test_it_is_remembered_for_the_next_run_and_the_resumed_one(
    data: Path, uncut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(step, "_backward", with_room_for(2))
        pretrain(config(training__max_steps=4), data=data, out=out)
    other, events = tmp_path / "other", list[Event]()
    pretrain(config(training__max_steps=4), data=data, out=other, on_event=events.append)
    assert sizes(other) == (2, 2)
    assert any(isinstance(event, Warned) and "did not fit here before" in event.message for event in events)
    events.clear()
    pretrain(config(training__max_steps=6), data=data, out=out, on_event=events.append)  # asks for 4 again
    assert sizes(out) == (2, 2)
    assert not any(isinstance(event, Warned) and "different micro-batches" in event.message for event in events)
    (oom_cache.cache_folder() / oom_cache.NAME).unlink()
    pretrain(config(training__max_steps=4), data=data, out=tmp_path / "third")
    assert sizes(tmp_path / "third") == (4, 1)


def test_ranks_that_cannot_agree_any_more_are_told_what_makes_it_fit(data: Path) -> None:
    packed = open_packed(data)
    choice = Choice(torch.device("cpu"), "fp32", "", "")
    here = DeviceLimits(packed, choice, World(size=2, local_size=2), None, lambda event: None)
    told = here.out_of_memory(with_data(config(training__gradient_accumulation=2), packed))
    assert "`--set training.micro_batch_size=2 --set training.gradient_accumulation=4`" in str(told.hint)
    assert "run the same command again" in str(told.hint)


class TwoRanks(World):
    """The other rank has room for so many sequences, and this one for any number."""

    room = 1

    def greatest(self, number: int) -> int:
        if number < 0:  # what fits by counting, turned around
            return number
        self.asked.append(number)  # type: ignore[attr-defined]
        return max(number, int(4 >> (len(self.asked) - 1) > self.room))  # type: ignore[attr-defined]


def fitted_by_ranks(data: Path, world: World, **changes: Any) -> tuple[RunConfig, list[Event]]:
    events: list[Event] = []
    packed = open_packed(data)
    here = DeviceLimits(packed, Choice(torch.device("cpu"), "fp32", "", ""), world, 10**12, events.append)
    return here.fit_memory(with_data(config(**changes), packed)), events


def test_ranks_agree_on_what_fits_all(data: Path) -> None:
    world = TwoRanks(size=2, local_size=2)
    object.__setattr__(world, "asked", [])
    found, events = fitted_by_ranks(data, world, training__gradient_accumulation=2)
    assert (found.training.micro_batch_size, found.training.gradient_accumulation) == (1, 8)
    assert world.asked == [0, 0, 0]  # type: ignore[attr-defined]
    assert len([event for event in events if isinstance(event, Warned)]) == 2


def test_ranks_try_only_where_counting_leaves_doubt(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def fits(config: RunConfig, *_: Any, **__: Any) -> bool:
        tried.append(config.training.micro_batch_size)
        return config.training.micro_batch_size <= 2

    monkeypatch.setattr(probe, "fits", fits)
    world = World(size=2, local_size=2)
    monkeypatch.setattr(World, "greatest", lambda self, number: number)
    assert fitted_by_ranks(data, world)[0].training.micro_batch_size == 4
    assert tried == []
    monkeypatch.setattr(fit, "SURE_SHARE", 0.0)
    assert fitted_by_ranks(data, world)[0].training.micro_batch_size == 2
    assert tried == [4, 2]
    assert fitted_by_ranks(data, world, training__parallel="fsdp")[0].training.micro_batch_size == 4


@pytest.mark.parametrize(("room", "expected"), [(4, (4, 1)), (3, (2, 2)), (0, (1, 4))])
def test_on_a_cpu_what_counting_says_is_heeded(data: Path, room: int, expected: tuple[int, int]) -> None:
    """A process that takes more memory than there is is killed there, and never sees an error."""
    events: list[Event] = []
    packed = open_packed(data)
    wanted = with_data(config(), packed)
    needed = peak_memory(wanted, seq_len=16, precision="fp32", on_cpu=True, micro_batch_size=room or 1).total
    free = int(needed / USABLE_SHARE) + 1 if room else needed // 2
    choice = Choice(torch.device("cpu"), "fp32", "", "")
    training = DeviceLimits(packed, choice, World(), free, events.append).fit_memory(wanted).training
    assert (training.micro_batch_size, training.gradient_accumulation) == expected
    assert len(events) == (room < 4)
    if room < 4:
        assert isinstance(events[0], Warned)
        assert "micro-batches of 4 sequences need 105.3 MB" in events[0].message
        assert (events[0].hint is None) == (room > 0)


# Time


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device on which a step takes a second, and a clock at 1,000. Nobody looks again."""
    rates = StepTimings(micro_batch=0.9, update=0.1, validation_sequence=0.0, generated_token=0.0)
    monkeypatch.setattr(probe, "measure_steps", lambda *_, **__: rates)

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return 1000.0

    monkeypatch.setattr(fit, "time", Clock)
    monkeypatch.setattr(time_budget, "check_steps", lambda config: frozenset())


@pytest.mark.usefixtures("steady")
def test_a_budget_chooses_the_steps_and_a_resumed_run_keeps_them(data: Path, tmp_path: Path) -> None:
    out, events = tmp_path / "run", list[Event]()
    wanted = config(training__max_steps=1000, training__checkpoint_interval=500, scheduler__warmup_steps=100)
    pretrain(wanted, data=data, out=out, finish_by=1000 + 22.0, on_event=events.append)
    chosen = run_folder.read_config(out)
    # A second to start, two checkpoints of a twentieth.
    assert chosen.training.max_steps == 20
    assert chosen.scheduler.warmup_steps == 2  # type: ignore[attr-defined]
    assert load_checkpoint(out / LAST_NAME).step == 20
    assert any(isinstance(event, Noted) and event.message.startswith("20 steps of 1 s fit") for event in events)
    events.clear()
    pretrain(wanted, data=data, out=out, finish_by=1000 + 500.0, on_event=events.append)
    assert run_folder.read_config(out) == chosen
    kept = f"`{out}` keeps its 20 steps and related settings: a budget only applies when a run starts"
    assert next(event.message for event in events if isinstance(event, Noted)) == kept
    pretrain(wanted, data=data, out=out, resume=out / "ckpt-step000010.pt", finish_by=1000 + 500.0)
    assert run_folder.read_config(out) == chosen


@pytest.mark.usefixtures("steady")
def test_a_budget_without_a_step_leaves_no_run(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too short"):
        pretrain(config(), data=data, out=tmp_path / "run", started=1000.0, finish_by=1001.5)
    assert not (tmp_path / "run").exists()


def test_a_budget_is_measured_with_what_fits(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure_steps(config: RunConfig, *_: Any, **__: Any) -> StepTimings:
        if config.training.micro_batch_size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return StepTimings(0.1, 0.1, 0.0, 0.0)

    monkeypatch.setattr(probe, "measure_steps", measure_steps)
    packed, events = open_packed(data), list[Event]()
    here = DeviceLimits(packed, Choice(torch.device("cpu"), "fp32", "", ""), World(), None, events.append)
    found, _ = here.fit_time(with_data(config(), packed), started=0.0, finish_by=10**9)
    assert (found.training.micro_batch_size, found.training.gradient_accumulation) == (2, 2)
