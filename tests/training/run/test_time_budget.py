"""A run with a budget looks again: the law of what may change, the numbers it finds, and runs that are changed."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders import run_config
from pydantic import ValidationError

from alm import kinds
from alm.checkpoint import background
from alm.checkpoint.format import LAST_NAME, Checkpoint
from alm.checkpoint.load import load_checkpoint
from alm.distributed import World
from alm.errors import StoppedError
from alm.events import CheckpointSaved, Event, Judged, Noted, Stepped, Warned
from alm.files import wrap_os_errors
from alm.optim.schedules import warmup_steps
from alm.packing.shards import open_packed
from alm.training import step
from alm.training.config import RunConfig
from alm.training.monitoring import metrics, samples, throughput
from alm.training.monitoring.throughput import LapTime
from alm.training.pretrain import pretrain
from alm.training.run import fit, run_folder, time_budget
from alm.training.run.time_budget import TimeBudget, check_steps, nearest_length, steps_in_time, with_length
from alm.training.sizing import oom_cache, probe
from alm.training.sizing.eta import TimeCosts, TimeLeft
from alm.training.sizing.memory import checkpoint_bytes
from alm.training.sizing.probe import StepTimings


def config(**changes: Any) -> RunConfig:
    """40 steps of a WSD schedule, of which the last 16 decay, logged every second one."""
    values = {
        "training__max_steps": 40,
        "training__checkpoint_interval": 100,
        "scheduler__kind": "wsd",
        "scheduler__warmup_steps": "auto",
        "validation__interval": 100,
        "samples__prompts": [],
    }
    return run_config(**{**values, **changes})


def factors(wanted: RunConfig) -> list[float]:
    schedule, steps = wanted.scheduler, wanted.training.max_steps
    return [kinds.module_of(schedule).factor(schedule, number, max_steps=steps) for number in range(steps)]


# The law


SCHEDULES: list[dict[str, Any]] = [
    {"scheduler__kind": kind, **values}
    for kind, values in itertools.product(
        ("wsd", "cosine", "linear"),
        (
            {"scheduler__warmup_steps": "auto"},
            {"scheduler__warmup_steps": 0},
            {"scheduler__warmup_steps": 13},
            {"scheduler__warmup_steps": 4, "scheduler__total_steps": 30},
            {"scheduler__warmup_steps": 4, "scheduler__final_fraction": 1.0},
        ),
    )
] + [{"scheduler__kind": "wsd", "scheduler__decay_fraction": 1.0, "scheduler__warmup_steps": 0}]


def of_length(before: RunConfig, steps: int, *, warmup: int) -> RunConfig | None:
    """The run of another length, by hand; None where there is none."""
    values = before.model_dump(mode="json")
    values["training"]["max_steps"] = steps
    values["scheduler"]["warmup_steps"] = warmup
    if values["scheduler"]["total_steps"] != "auto":
        values["scheduler"]["total_steps"] = max(1, round(30 * steps / 40))
    try:
        return RunConfig.model_validate(values)
    except ValidationError:
        return None


def warmup_of(changes: dict[str, Any]) -> int:
    given = changes["scheduler__warmup_steps"]
    return 2 if given == "auto" else int(given)  # a twentieth of 40


@pytest.mark.slow
def test_the_new_length_is_the_nearest_one_under_which_nothing_so_far_was_otherwise() -> None:
    for changes in SCHEDULES:
        before = config(**changes)
        others = {n: of_length(before, n, warmup=warmup_of(changes)) for n in range(1, 91)}
        known = {n: (other, factors(other)) for n, other in others.items() if other is not None}
        own = factors(before)
        for done, wanted in itertools.product((1, 3, 14, 25, 26), (2, 16, 27, 41, 90)):
            if wanted <= done:
                continue
            allowed = [n for n, (_, found) in known.items() if n > done and found[:done] == own[:done]]
            between = [n for n in allowed if min(wanted, 40) <= n <= max(wanted, 40)]
            expected = min(between, key=lambda n: abs(n - wanted))
            found = nearest_length(before, wanted, step=done)
            assert found.training.max_steps == expected, (changes, done, wanted)
            assert found == (before if expected == 40 and wanted != 40 else known[expected][0])


def test_looks_are_at_logged_steps_while_the_length_is_open() -> None:
    for changes, every in itertools.product(SCHEDULES, (1, 2, 7)):
        before = config(**changes, logging__log_interval=every)
        longer = of_length(before, 80, warmup=warmup_of(changes))
        assert longer is not None
        own, other = factors(before), factors(longer)
        is_open = [done for done in range(41) if own[:done] == other[:done]]
        found = sorted(check_steps(before))
        assert all(step % every == 0 and step in is_open and 0 < step < 40 for step in found), (changes, every)
        last = [step for step in range(every, 40, every) if step in is_open]
        assert found[-1:] == last[-1:] or len(is_open) == 41  # one that never decays has no last moment
        # As many as there is room for.
        assert len(found) == min(len(last), time_budget.CHECKS - (len(is_open) == 41)) or every > 1


def test_looks_by_hand() -> None:
    assert sorted(check_steps(config())) == [2, 6, 8, 12, 14, 18, 20, 24]  # eighths of 25, rounded to logged steps
    assert check_steps(config(scheduler__kind="cosine", scheduler__warmup_steps=0)) == frozenset()


def test_another_length_changes_nothing_else() -> None:
    before = config(scheduler__total_steps=20, training__keep_every=7)
    values = with_length(before, 60).model_dump(mode="json")
    assert (values["training"].pop("max_steps"), values["scheduler"].pop("total_steps")) == (60, 30)
    assert values["scheduler"].pop("warmup_steps") == 1  # a twentieth of 20
    expected = before.model_dump(mode="json")
    for section, key in (("training", "max_steps"), ("scheduler", "total_steps"), ("scheduler", "warmup_steps")):
        del expected[section][key]
    assert values == expected


# The numbers


def test_as_many_steps_as_end_in_time() -> None:
    before = config(training__checkpoint_interval=9, validation__interval=5, samples__prompts=["a"], samples__count=6)
    most = 150
    for pauses in ({}, {"validation": 3.0, "saving": 1.5, "samples": 2.0}):
        pace = TimeLeft(pauses)
        for done in (1, 5, 20, 39):

            def spent(steps: int, done: int = done, pauses: dict[str, float] = pauses) -> float:
                to_come, sampled = range(done + 1, steps + 1), samples.sample_steps(steps, 6)
                return (
                    len(to_come) * 0.5
                    + sum(n % 5 == 0 or n == steps for n in to_come) * pauses.get("validation", 0)
                    + sum(n % 9 == 0 or n == steps for n in to_come) * pauses.get("saving", 0)
                    + sum(n in sampled for n in to_come) * pauses.get("samples", 0)
                )

            costs = {steps: spent(steps) for steps in range(done + 1, most)}
            for seconds in (-5.0, 0.0, 0.4, 7.0, 30.0, 50.0):
                fitting = [steps for steps, cost in costs.items() if cost <= seconds]
                assert most - 1 not in fitting
                found = steps_in_time(before, pace, step=done, step_seconds=0.5, seconds=seconds)
                assert found == max([done + 1, *fitting]), (pauses, done, seconds)


class Now:
    """A clock that the test moves."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


def look(
    monkeypatch: pytest.MonkeyPatch, *, done: int, step_seconds: float, seconds_left: float, world: World | None = None,
    **changes: Any,
) -> tuple[RunConfig | None, list[str]]:  # fmt: skip
    """What a look after so many steps finds, and what is said of it."""
    monkeypatch.setattr(time_budget, "time", Now())
    pace, events = TimeLeft(), list[Event]()
    for _ in range(2):
        pace.stepped(LapTime(10 * step_seconds, 10, 0.0))
    costs = TimeCosts(0, 1, 0, 0, 0.1)
    budget = TimeBudget(1000.0 + seconds_left, costs, world=world or World(), on_event=events.append)
    changed = budget.new_length(config(**changes), pace, step=done)
    return changed, [event.message for event in events if isinstance(event, Noted)]


@pytest.mark.parametrize(
    ("step_seconds", "seconds_left", "expected"),
    [
        (1.0, 28.2, None),  # 28 steps are left, as planned
        (1.0, 29.2, None),  # one more is not worth it
        (2.0, 28.2, 12 + 14),
        (0.5, 28.2, 12 + 56),
        (1.0, 14.2, 12 + 14),  # a checkpoint took longer than it should
    ],
)
def test_the_length_follows_the_machine(
    monkeypatch: pytest.MonkeyPatch, step_seconds: float, seconds_left: float, expected: int | None
) -> None:
    changed, said = look(monkeypatch, done=12, step_seconds=step_seconds, seconds_left=seconds_left)
    assert (None if changed is None else changed.training.max_steps) == expected
    if expected is None:
        assert said == []
    else:
        assert said == [f"a step takes {step_seconds:.3g} s now: {expected} steps instead of 40 fit in the time"]


def test_between_checks_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(monkeypatch, done=11, step_seconds=9.0, seconds_left=28.0) == (None, [])
    assert look(monkeypatch, done=26, step_seconds=9.0, seconds_left=14.0) == (None, [])  # it decays


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_a_schedule_that_falls_from_the_start_is_left_alone_after_its_warm_up(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    changes = {"scheduler__kind": kind, "scheduler__warmup_steps": 6}
    assert max(check_steps(config(**changes))) == 6
    changed, _ = look(monkeypatch, done=6, step_seconds=2.0, seconds_left=34.2, **changes)
    assert changed is not None
    assert changed.training.max_steps == 6 + 17
    for done in range(7, 41):
        assert look(monkeypatch, done=done, step_seconds=9.0, seconds_left=1.0, **changes) == (None, [])


def test_where_the_time_is_over_the_run_ends_as_early_as_its_schedule_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    changed, said = look(monkeypatch, done=18, step_seconds=2.0, seconds_left=6.2)
    assert changed is not None
    # Of 28 steps 11 decay, and the first of these is still at the peak: 18 are as they were. Of 27 they are 17.
    assert changed.training.max_steps == 28
    assert said == [
        "a step takes 2 s now: 21 steps instead of 40 fit in the time, but the learning rates so far need 28, "
        "14 seconds more"
    ]


def test_checkpoints_stay_half_an_hour_apart_whatever_a_step_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    intervals = {0.5: 100, 90.0: 20, 91.0: 19, 1800.0: 1, 4000.0: 1}  # never longer than the 100 that it was
    for step_seconds, interval in intervals.items():
        changed, _ = look(monkeypatch, done=12, step_seconds=step_seconds, seconds_left=18 * step_seconds + 0.3)
        assert changed is not None
        assert changed.training.max_steps == 12 + 18
        assert changed.training.checkpoint_interval == interval, step_seconds


class Other(World):
    """Rank 1 of two, which hears from the main rank what is so."""

    def from_main(self, make: Callable[[], Any]) -> Any:
        return with_length(config(), 33)


def test_the_main_rank_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Other(rank=1, size=2)
    changed, said = look(monkeypatch, done=12, step_seconds=9.0, seconds_left=28.0, world=other)
    assert changed == with_length(config(), 33)
    assert said == []


# In runs


class Machine:
    """A device whose steps take `seconds(step)` on a clock of its own, and were measured to take one, or `measured`."""

    def __init__(
        self, seconds: Callable[[int], float], clock: Now, monkeypatch: pytest.MonkeyPatch, *, measured: float = 1.0
    ) -> None:
        real = step._backward

        def backward(state: Any, batch: Any, **keywords: Any) -> Any:
            clock.now += seconds(state.step) * len(batch.inputs)
            return real(state, batch, **keywords)

        monkeypatch.setattr(step, "_backward", backward)
        rates = StepTimings(0.9 * measured, 0.1 * measured, 0.0, 0.0)
        monkeypatch.setattr(probe, "measure_steps", lambda *_, **__: rates)
        for module in (fit, time_budget, throughput):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr("alm.training.monitoring.throughput.measured_matmul_rate", lambda *_: 1e30)


def wanted(**changes: Any) -> RunConfig:
    """What is asked for: 1,000 steps of one sequence each."""
    values = {
        "training__max_steps": 1000,
        "training__micro_batch_size": 1,
        "training__gradient_accumulation": 1,
        "training__checkpoint_interval": 1000,
        "validation__interval": 250,
        "samples__prompts": ["the"],
        "samples__count": 5,
    }
    return config(**{**values, **changes})


FINISH_BY = 1000.0 + 41.5


@pytest.fixture(scope="module")
def slow(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path], list[Event]]:
    """A run on a machine half as fast as was measured, and copies of its folder: what a kill there would leave."""
    root, events, copies = tmp_path_factory.mktemp("slow"), list[Event](), dict[str, Path]()
    out, clock = root / "run", Now()

    def listen(event: Event) -> None:
        events.append(event)
        moments = {Stepped: {5: "before", 7: "after", 15: "later"}, CheckpointSaved: {6: "between"}}
        name = moments.get(type(event), {}).get(getattr(event, "step", 0))
        if name is not None:
            copies[name] = root / name
            shutil.copytree(out, copies[name])
            (copies[name] / run_folder.LOCK_NAME).unlink()

    with pytest.MonkeyPatch.context() as patch:
        Machine(lambda step: 2.0, clock, patch)
        pretrain(wanted(), data=data, out=out, finish_by=FINISH_BY, on_event=listen)
    assert clock.now == 1000.0 + 2 * 20
    return out, copies, events


def bits(out: Path) -> str:
    """A hash of all that decides what comes next: weights and optimizer."""
    found = load_checkpoint(out / LAST_NAME)
    digest = hashlib.sha256(str(found.step).encode())
    for tensor in [*found.model.values(), *(t for s in found.optimizer["state"].values() for t in s.values())]:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def rows(out: Path) -> list[dict[str, Any]]:
    return metrics.without_clock(metrics.read(out)) + metrics.read(out, name=samples.NAME)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("full", ["checkpoint", "config.yaml"])
def test_a_full_disk_at_a_change_leaves_the_run_as_it_is_until_the_next_look(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    out, events, refused = tmp_path / "run", list[Event](), list[str]()
    Machine(lambda step: 2.0, Now(), monkeypatch)
    save, rewrite = background.save_checkpoint, run_folder.rewrite

    def refuse(name: str) -> None:
        if name == full and not refused:
            refused.append(name)
            with wrap_os_errors(out):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def saved(checkpoint: Checkpoint, *args: Any, **keywords: Any) -> Any:
        refuse("checkpoint")
        return save(checkpoint, *args, **keywords)

    def rewritten(folder: Path, *args: Any) -> None:
        if list(out.glob("ckpt-*.pt")):
            refuse(run_folder.CONFIG_NAME)
        rewrite(folder, *args)

    monkeypatch.setattr(background, "save_checkpoint", saved)
    monkeypatch.setattr(run_folder, "rewrite", rewritten)
    pretrain(wanted(), data=data, out=out, finish_by=FINISH_BY, on_event=events.append)
    assert refused == [full]
    assert any(isinstance(event, Warned) for event in events)
    looked = [event.message for event in events if isinstance(event, Noted) and "a step takes 2 s" in event.message]
    assert len(looked) == 2
    assert run_folder.read_config(out).training.max_steps < 40
    assert load_checkpoint(out / LAST_NAME).step == run_folder.read_config(out).training.max_steps


def test_a_run_that_was_changed_is_one_that_had_its_length_from_the_start(
    data: Path, tmp_path: Path, slow: tuple[Path, dict[str, Path], list[Event]]
) -> None:
    out, _, events = slow
    own = run_folder.read_config(out)
    # 40 steps of a second fit. After 6 that took two, 29.5 s are left, less those of the last checkpoint.
    assert own.training.max_steps == 20
    assert warmup_steps(own.scheduler, max_steps=20) == 2  # that of 40: a twentieth of 20 would be one
    pretrain(own, data=data, out=tmp_path / "other")
    assert (out / LAST_NAME).read_bytes() == (tmp_path / "other" / LAST_NAME).read_bytes()
    told = [event.message for event in events if isinstance(event, Noted) and "instead" in event.message]
    assert told == ["a step takes 2 s now: 20 steps instead of 40 fit in the time"]
    steps = [(event.step, event.max_steps) for event in events if isinstance(event, Stepped)]
    assert steps == [(n, 40 if n <= 6 else 20) for n in range(1, 21)]
    assert {event.max_steps for event in events if isinstance(event, Judged) and event.step > 6} == {20}
    finished = run_folder.read_metadata(out)
    assert finished.result is not None
    assert (finished.result.step, finished.config["training"]["max_steps"]) == (20, 20)
    assert finished.asked["training.max_steps"] == 1000
    assert finished.asked["scheduler.warmup_steps"] == "auto"


def test_samples_that_were_written_stay_and_none_comes_twice(
    slow: tuple[Path, dict[str, Path], list[Event]],
) -> None:
    steps = [row["step"] for row in metrics.read(slow[0], name=samples.NAME)]
    of_40, of_20 = samples.sample_steps(40, 5), samples.sample_steps(20, 5)
    assert of_40 == (1, 3, 6, 16, 40)
    assert of_20 == (1, 2, 4, 9, 20)
    assert steps == [1, 3, 6, 9, 20]


def test_the_time_left_that_is_shown_knows_the_new_length_at_once(
    slow: tuple[Path, dict[str, Path], list[Event]],
) -> None:
    left = {
        event.step: event.seconds_left for event in slow[2] if isinstance(event, Stepped) and event.loss is not None
    }
    assert left[6] == pytest.approx(34 * 2.0, abs=1.0)
    assert left[8] == pytest.approx(12 * 2.0, abs=1.0)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("moment", ["after", "later"])
def test_killed_after_the_change_it_goes_on_to_the_same_end(
    data: Path, tmp_path: Path, slow: tuple[Path, dict[str, Path], list[Event]], moment: str
) -> None:
    out, copies, _ = slow
    again = tmp_path / "run"
    shutil.copytree(copies[moment], again)
    pretrain(wanted(), data=data, out=again, finish_by=10**9)  # the same command
    assert bits(again) == bits(out)
    assert rows(again) == rows(out)
    assert run_folder.read_config(again) == run_folder.read_config(out)
    assert run_folder.read_metadata(again).asked == run_folder.read_metadata(out).asked


@pytest.mark.sampled(1)
@pytest.mark.parametrize("moment", ["before", "between"])
def test_killed_before_the_change_it_goes_on_as_it_was(
    data: Path, tmp_path: Path, slow: tuple[Path, dict[str, Path], list[Event]], moment: str
) -> None:
    again = tmp_path / "run"
    shutil.copytree(slow[1][moment], again)
    pretrain(wanted(), data=data, out=again, finish_by=10**9)
    own = run_folder.read_config(again)
    assert own.training.max_steps == 40
    pretrain(own, data=data, out=tmp_path / "other")
    assert bits(again) == bits(tmp_path / "other")


def test_a_stop_right_after_the_change_saves_and_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: tuple[Path, dict[str, Path], list[Event]]
) -> None:
    seen: list[Event] = []

    def stop(event: Event) -> None:
        if isinstance(event, CheckpointSaved) and not seen:
            seen.append(event)
            signal.raise_signal(signal.SIGINT)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        Machine(lambda step: 2.0, Now(), patch)
        with pytest.raises(StoppedError, match="interrupted at step 6"):
            pretrain(wanted(), data=data, out=out, finish_by=FINISH_BY, on_event=stop)
    pretrain(wanted(), data=data, out=out, finish_by=10**9)
    assert bits(out) == bits(slow[0])
    assert rows(out) == rows(slow[0])


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("seconds", "late"),
    [
        (lambda step: 0.5, 1.0),  # faster than was measured
        (lambda step: 1.0 if step < 6 else 2.0, 4.0),  # half is what it was before: it takes some looks
        (lambda step: 3.0 if step < 6 else 1.0, 4.0),
    ],
)
def test_the_run_ends_in_time(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float], late: float
) -> None:
    clock, out, events = Now(), tmp_path / "run", list[Event]()
    Machine(seconds, clock, monkeypatch)
    pretrain(wanted(samples__prompts=[]), data=data, out=out, finish_by=FINISH_BY, on_event=events.append)
    steps = run_folder.read_config(out).training.max_steps
    assert steps != 40
    assert abs(1000.0 + sum(map(seconds, range(40))) - FINISH_BY) > 10.0  # otherwise
    assert abs(clock.now - FINISH_BY) <= late
    assert not [event for event in events if isinstance(event, Warned)]


@pytest.mark.slow
def test_micro_batches_that_are_halved_later_leave_the_new_length(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oom_cache, "remember", lambda *_, **__: None)
    real = step._backward

    def backward(state: Any, batch: Any, **keywords: Any) -> Any:
        if state.step >= 10 and len(batch.inputs) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(state, batch, **keywords)

    monkeypatch.setattr(step, "_backward", backward)
    Machine(lambda step: 1.0, Now(), monkeypatch)  # for each sequence
    out = tmp_path / "run"
    pretrain(wanted(training__micro_batch_size=2), data=data, out=out, finish_by=FINISH_BY)
    training = run_folder.read_config(out).training
    assert (training.max_steps, training.micro_batch_size, training.gradient_accumulation) == (20, 1, 2)
    assert run_folder.read_metadata(out).asked["training.micro_batch_size"] == 2


def test_an_error_after_the_change_saves_what_the_run_has_become(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = step._backward

    def backward(state: Any, batch: Any, **keywords: Any) -> Any:
        if state.step == 9:
            raise ValueError("a bug")
        return real(state, batch, **keywords)

    monkeypatch.setattr(step, "_backward", backward)
    Machine(lambda step: 2.0, Now(), monkeypatch)
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="a bug"):
        pretrain(wanted(), data=data, out=out, finish_by=FINISH_BY)
    saved = torch.load(out / "ckpt-step000009-interrupt.pt", weights_only=True)
    assert saved["config"]["training"]["max_steps"] == 20


def test_checkpoints_come_every_half_hour_once_steps_take_longer(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of ten minutes were planned: three of them to a checkpoint. They take twenty."""
    out, events = tmp_path / "run", list[Event]()
    Machine(lambda step: 1200.0, Now(), monkeypatch, measured=600.0)
    pretrain(wanted(samples__prompts=[]), data=data, out=out, finish_by=1000.0 + 41.5 * 600.0, on_event=events.append)
    saved = [event.step for event in events if isinstance(event, CheckpointSaved)]
    assert saved == [3, 6, *range(7, 21)]
    assert run_folder.read_config(out).training.max_steps == 20
    assert run_folder.read_metadata(out).asked["training.checkpoint_interval"] == 1000


class Disk:
    """Free space: plenty before the first step, then what `free` says, time after time."""

    def __init__(self, free: Callable[[int], int], clock: Now, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0

        def usage(path: Path) -> SimpleNamespace:
            if clock.now == 1000.0:
                return SimpleNamespace(free=10**15)
            self.times += 1
            return SimpleNamespace(free=free(self.times))

        monkeypatch.setattr("shutil.disk_usage", usage)


NO_ROOM = "the run keeps its length: "


def faster(
    data: Path, out: Path, missing: Callable[[int], int], monkeypatch: pytest.MonkeyPatch
) -> tuple[RunConfig, list[Event], Disk]:
    """What a run becomes on a machine twice as fast as was measured, and so many bytes too small.

    It has 40 steps, then about 80, and saves every 40: two checkpoints, not one, are to come after the look at step 6.
    """
    size = checkpoint_bytes(wanted(model__vocab_size=open_packed(data).metadata.vocab_size))
    clock, events = Now(), list[Event]()
    with monkeypatch.context() as patch:
        Machine(lambda step: 0.5, clock, patch)
        disk = Disk(lambda time: max(2 * size - missing(time), 0), clock, patch)
        pretrain(wanted(samples__prompts=[]), data=data, out=out, finish_by=FINISH_BY, on_event=events.append)
    return run_folder.read_config(out), events, disk


@pytest.mark.slow
def test_a_run_gets_longer_where_its_checkpoints_have_room(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, events, disk = faster(data, tmp_path / "run", lambda time: 0, monkeypatch)
    assert 70 < own.training.max_steps < 86
    assert own.training.checkpoint_interval == 40
    assert disk.times > 0
    assert not [event for event in events if isinstance(event, Warned)]


@pytest.mark.slow
def test_a_run_stays_as_it_is_where_its_checkpoints_have_no_room(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, events, _ = faster(data, tmp_path / "run", lambda time: 1 if time == 1 else 10**15, monkeypatch)
    warned = [event for event in events if isinstance(event, Warned)]
    assert own.training.max_steps == 40
    assert "the next 2 checkpoints" in warned[0].message
    assert all(event.message.startswith(NO_ROOM) for event in warned)
    assert all("df -h" in str(event.hint) for event in warned)
    pretrain(own, data=data, out=tmp_path / "other")
    assert bits(tmp_path / "run") == bits(tmp_path / "other")
    assert rows(tmp_path / "run") == rows(tmp_path / "other")


@pytest.mark.slow
def test_room_that_is_there_at_a_later_look_is_used(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, events, _ = faster(data, tmp_path / "run", lambda time: int(time == 1), monkeypatch)
    assert 70 < own.training.max_steps < 86
    assert len([event for event in events if isinstance(event, Warned) and event.message.startswith(NO_ROOM)]) == 1
    assert load_checkpoint(tmp_path / "run" / LAST_NAME).step == own.training.max_steps


def test_a_run_gets_shorter_on_a_full_disk(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, out = Now(), tmp_path / "run"
    Machine(lambda step: 2.0, clock, monkeypatch)
    disk = Disk(lambda time: 0, clock, monkeypatch)
    pretrain(wanted(samples__prompts=[]), data=data, out=out, finish_by=FINISH_BY)
    assert (run_folder.read_config(out).training.max_steps, disk.times) == (20, 0)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("asked", [20, 40])
@pytest.mark.parametrize(("moment", "steps"), [("before", 40), ("after", 20)])
def test_killed_while_a_change_is_noted_the_same_command_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, steps: int, asked: int
) -> None:
    """Right before the folder says the new length it goes on in the old one, right after in the new one.

    Either may be the one that was asked for; that it differs has to be known of the other.
    """
    same_command = wanted(training__max_steps=asked, scheduler__total_steps=asked, samples__prompts=[])
    out, left, rewrite = tmp_path / "run", tmp_path / "left", run_folder.rewrite

    def rewritten(folder: Path, *args: Any) -> None:
        is_change = folder == out and list(out.glob("ckpt-*.pt"))
        if is_change and moment == "before":
            leave()
        rewrite(folder, *args)
        if is_change and moment == "after":
            leave()

    def leave() -> None:
        shutil.copytree(out, left)
        (left / run_folder.LOCK_NAME).unlink()

    def noted(folder: Path) -> dict[str, Any]:
        keys = ("training.max_steps", "scheduler.total_steps")
        return {key: value for key, value in run_folder.read_metadata(folder).asked.items() if key in keys}

    def differing(length: int) -> dict[str, Any]:
        return {} if asked == length else {"training.max_steps": asked, "scheduler.total_steps": asked}

    with monkeypatch.context() as patch:
        Machine(lambda step: 2.0, Now(), patch)
        patch.setattr(run_folder, "rewrite", rewritten)
        pretrain(same_command, data=data, out=out, finish_by=FINISH_BY)
    assert run_folder.read_config(out).training.max_steps == 20
    assert noted(out) == differing(20)
    assert run_folder.read_config(left).training.max_steps == steps
    pretrain(same_command, data=data, out=left, finish_by=10**9)
    own = run_folder.read_config(left)
    assert (own.training.max_steps, own.scheduler.model_dump()["total_steps"]) == (steps, steps)
    assert load_checkpoint(left / LAST_NAME).step == steps
    assert noted(left) == differing(steps)


NEED = "but the learning rates so far need"


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (
            lambda step: 4.0,
            [f"a step takes 4 s now: 10 steps instead of 40 fit in the time, {NEED} 21, 43 seconds more"],
        ),
        (  # for a while it is in time, as it is; then it is late again
            lambda step: 6.0 if step < 2 else 0.25 if step < 5 else 3.0 if step < 8 else 5.0,
            [
                f"a step takes 3.12 s now: 12 steps instead of 40 fit in the time, {NEED} 21, 27 seconds more",
                f"a step takes 2.34 s now: 16 steps instead of 21 fit in the time, {NEED} 21, 10 seconds more",
            ],
        ),
        (  # for a while it has time for more
            lambda step: 4.0 if step < 6 else 0.5 if step < 14 else 6.0,
            [
                f"a step takes 4 s now: 10 steps instead of 40 fit in the time, {NEED} 21, 43 seconds more",
                "a step takes 1.16 s now: 23 steps instead of 21 fit in the time",
                "a step takes 0.828 s now: 28 steps instead of 23 fit in the time",
                "a step takes 0.664 s now: 33 steps instead of 28 fit in the time",
                f"a step takes 1.96 s now: 18 steps instead of 33 fit in the time, {NEED} 23, 8 seconds more",
            ],
        ),
    ],
)
def test_that_a_run_will_be_late_is_told_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float], expected: list[str]
) -> None:
    """A long warm-up has no shorter run, however often it is looked at: 13 steps of it, and 8 that decay."""
    events = list[Event]()
    Machine(seconds, Now(), monkeypatch)
    asked = wanted(scheduler__warmup_steps=325, logging__log_interval=1, samples__prompts=[])
    pretrain(asked, data=data, out=tmp_path / "run", finish_by=FINISH_BY, on_event=events.append)
    told = [event.message for event in events if isinstance(event, Noted) and "fit in the time" in event.message]
    assert told == expected


def test_what_the_device_can_do_at_best_is_not_forgotten_at_a_change(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was busy when that was measured, and is measured again when a run is faster: once for all lengths."""
    rates = iter([1e7, 1e8])
    Machine(lambda step: 2.0, Now(), monkeypatch)
    monkeypatch.setattr(throughput, "matmul_rate", lambda *_: 1.0)
    monkeypatch.setattr(throughput, "measured_matmul_rate", lambda *_: next(rates))
    out = tmp_path / "run"
    pretrain(wanted(samples__prompts=[]), data=data, out=out, finish_by=FINISH_BY)
    assert run_folder.read_config(out).training.max_steps == 20
    shares = [row["mfu"] for row in metrics.read(out) if "mfu" in row]
    assert len(shares) == 10
    assert shares[0] > 0.01
    assert set(shares) == {shares[0]}  # all steps take the same
    assert next(rates) == 1e8
