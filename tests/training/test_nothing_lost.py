"""What a run survives: stops, errors, full disks, losses that are not finite. Each time the bits are the same."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import run_config, write_packed
from torch import nn

from alm.artifacts import CheckpointMetadata
from alm.checkpoint import background
from alm.checkpoint.format import BEST_NAME, LAST_NAME, Checkpoint, name, numbered, step_of
from alm.checkpoint.load import load_checkpoint, verify
from alm.errors import AlmError, ConfigError, StoppedError
from alm.events import CheckpointSaved, Event, Noted, Resumed, Stepped, Validated, Warned
from alm.model.transformer import Transformer
from alm.training import step
from alm.training.monitoring import metrics, samples
from alm.training.pretrain import pretrain
from alm.training.run import run_folder

STEPS = 12


def same(run_: Path, other: Path, name: str = LAST_NAME) -> bool:
    """Whether two runs ended alike: weights, moments, counts, and metrics but for the clock."""
    first, second = (load_checkpoint(folder / name) for folder in (run_, other))
    tensors = [
        (*f.model.values(), *(value for s in f.optimizer["state"].values() for value in s.values()))
        for f in (first, second)
    ]
    counts = [(f.step, f.skipped_steps, f.skipped_in_row) for f in (first, second)]
    rows = [metrics.without_clock(metrics.read(folder)) for folder in (run_, other)]
    return (
        len(tensors[0]) == len(tensors[1])
        and all(map(torch.equal, *tensors))
        and counts[0] == counts[1]
        and rows[0] == rows[1]
    )


def warnings(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warned)]


def on(kind: type[Event], at: int, action: Callable[[], object]) -> Callable[[Event], None]:
    """A listener that does `action` at the event of `kind` at step `at`."""

    def listener(event: Event) -> None:
        if isinstance(event, kind) and getattr(event, "step", None) == at:
            action()

    return listener


# ---- stops


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGUSR1")
def test_usr1_saves_and_says_that_the_run_is_not_finished(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(StoppedError, match="stopped by SIGUSR1 at step 5; saved") as caught:
        pretrain(
            run_config(),
            data=data,
            out=tmp_path / "run",
            on_event=on(Stepped, 5, lambda: signal.raise_signal(signal.SIGUSR1)),
        )
    assert caught.value.exit_code == 75
    assert signal.getsignal(signal.SIGUSR1) == before
    pretrain(run_config(), data=data, out=tmp_path / "run")
    assert same(tmp_path / "run", uninterrupted)


def test_a_time_limit_saves_and_says_that_the_run_is_not_finished(
    data: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def later() -> None:
        nonlocal now
        now = 61.0

    monkeypatch.setattr("alm.training.stop.time.monotonic", lambda: now)
    out = tmp_path / "run"
    with pytest.raises(StoppedError, match="stopped by the time limit at step 6; saved") as caught:
        pretrain(run_config(), data=data, out=out, deadline=60.0, on_event=on(Stepped, 6, later))
    assert caught.value.exit_code == 75
    assert verify(out / LAST_NAME).step == 6
    pretrain(run_config(), data=data, out=out, deadline=1000.0)
    assert same(out, uninterrupted)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("at", [4, 12])
def test_a_stop_within_validation_is_made_up_for_on_resume(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Also within the last one: the run is not finished before it is scored."""
    out, uninterrupted = tmp_path / "run", tmp_path / "whole"
    config = run_config(validation__bytes=100_000)
    pretrain(config, data=data, out=uninterrupted)
    seen, current = 0, 0
    real = Transformer.token_losses

    def stopping(*arguments: Any) -> torch.Tensor:
        nonlocal seen
        if current == at:
            seen += 1
            if seen == 2:
                signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    def note(event: Event) -> None:
        nonlocal current
        if isinstance(event, Stepped):
            current = event.step

    monkeypatch.setattr(Transformer, "token_losses", stopping)
    with pytest.raises(StoppedError, match=f"interrupted at step {at}"):
        pretrain(config, data=data, out=out, on_event=note)
    assert seen == 2
    assert not any(row["step"] == at and "bits_per_byte" in row for row in metrics.read(out))
    events: list[Event] = []
    made = pretrain(config, data=data, out=out, on_event=events.append)
    assert [event.step for event in events if isinstance(event, Validated)] == list(range(at, STEPS + 1, 4))
    assert made.result is not None
    assert made.result.bits_per_byte is not None
    assert same(out, uninterrupted)


# ---- errors


def failing(at: int, error: BaseException) -> Callable[..., Any]:
    """`step._backward` that fails in the second micro-batch of the step numbered `at` from 0."""
    real, seen = step._backward, [0]

    def backward(state: Any, *arguments: Any, **keywords: Any) -> Any:
        if state.step == at:
            seen[0] += 1
            if seen[0] == 2:
                raise error
        return real(state, *arguments, **keywords)

    return backward


@pytest.mark.sampled(1)
@pytest.mark.parametrize("error", [ValueError("a bug"), AlmError("a refusal"), RuntimeError("a kernel failed")])
def test_an_error_saves_the_last_whole_step(
    data: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(step, "_backward", failing(6, error))
        with pytest.raises(type(error), match=str(error)):
            pretrain(run_config(), data=data, out=out)
    assert verify(out / "ckpt-step000006-interrupt.pt").step == 6
    events: list[Event] = []
    pretrain(run_config(), data=data, out=out, on_event=events.append)
    assert Resumed(out, 6, STEPS) in events
    assert same(out, uninterrupted)


def test_a_loader_that_fails_saves_too(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alm.data import loader

    real = loader.read_step

    def broken(stream: Any, plan: Any, number: int, **keywords: Any) -> Any:
        if number == 7:
            raise OSError("the share is gone")
        return real(stream, plan, number, **keywords)

    monkeypatch.setattr(loader, "read_step", broken)
    with pytest.raises(OSError, match="the share is gone"):
        pretrain(run_config(), data=data, out=tmp_path / "run")
    assert verify(tmp_path / "run" / LAST_NAME).step == 7


def test_an_update_that_broke_off_is_not_saved(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.optim.AdamW.step
    calls = 0

    def breaking(self: Any) -> None:
        nonlocal calls
        calls += 1
        real(self)
        if calls == 6:
            raise RuntimeError("in the middle of an update")

    monkeypatch.setattr(torch.optim.AdamW, "step", breaking)
    with pytest.raises(RuntimeError, match="in the middle"):
        pretrain(run_config(), data=data, out=tmp_path / "run")
    assert [step_of(path) for path in numbered(tmp_path / "run")] == [4]


# ---- disks


def filling(at: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints of the steps `at` find no room."""
    from alm.checkpoint import save

    real = save._serialize

    def serialize(checkpoint: Any, target: Any) -> None:
        target.write(b"half")
        if checkpoint.step in at:
            raise OSError(28, "No space left on device")
        target._file.seek(0)
        target.__init__(target._file, target._is_cancelled)
        real(checkpoint, target)

    monkeypatch.setattr(save, "_serialize", serialize)


def test_a_disk_that_is_full_for_a_while_loses_nothing(
    data: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, events = tmp_path / "run", list[Event]()
    filling([8], monkeypatch)
    pretrain(run_config(), data=data, out=out, on_event=events.append)
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [4, 12]
    assert ["No space left" in text and "tries again" in text for text in warnings(events)] == [True]
    assert not list(out.glob(".*"))
    assert same(out, uninterrupted)


def test_a_disk_that_stays_full_is_an_error_that_keeps_the_old(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    filling([8, 12], monkeypatch)
    with pytest.raises(AlmError, match="No space left on device"):
        pretrain(run_config(), data=data, out=out)
    assert [step_of(path) for path in numbered(out)] == [4]
    assert run_folder.read_metadata(out).result is None


def test_room_is_asked_for_before_a_step_is_spent(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    events: list[Event] = []
    with pytest.raises(AlmError, match=r"has 1\.0 kB of free space, and the next 4 checkpoints"):
        pretrain(run_config(training__max_steps=40), data=data, out=tmp_path / "run", on_event=events.append)
    assert not [event for event in events if isinstance(event, Stepped)]


def test_metrics_on_a_full_disk_wait_and_are_whole_afterwards(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    events: list[Event] = []
    rows = [{"step": number, "loss": 1.5} for number in range(40)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with metrics.MetricsFile(tmp_path, on_event=events.append) as file:
        for row in rows[:3]:
            file.write(row)
        resource.setrlimit(resource.RLIMIT_FSIZE, (270, hard))  # in the middle of a row
        try:
            for row in rows[3:30]:
                file.write(row)
            file.sync()
            held = metrics.read(tmp_path)
            assert held == rows[: len(held)]
            assert 3 < len(held) < 20
            assert (tmp_path / metrics.NAME).read_bytes().endswith(b"}\n")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        for row in rows[30:]:
            file.write(row)
    assert metrics.read(tmp_path) == rows
    assert ["wait in memory" in text for text in warnings(events)] == [True]


def test_metrics_that_never_find_room_are_told(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    events: list[Event] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with metrics.MetricsFile(tmp_path, on_event=events.append) as file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
            file.write({"step": 1})
            file.write({"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "2 rows of" in warnings(events)[-1]
    assert "are lost" in warnings(events)[-1]


# ---- what is not finite


def poisoned(steps: set[int], value: float, *, loss: bool) -> Callable[..., Any]:
    """`step._backward` whose loss, or one of whose gradients, is `value` in `steps`, numbered from 0."""
    real = step._backward

    def backward(state: Any, *arguments: Any, **keywords: Any) -> Any:
        found = real(state, *arguments, **keywords)
        if state.step in steps:
            if loss:
                return found * value
            next(state.model.parameters()).grad[0, 0] = value
        return found

    return backward


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("loss", [True, False])
@pytest.mark.parametrize("on_device", [True, False])
def test_a_step_that_is_not_finite_leaves_every_bit(
    monkeypatch: pytest.MonkeyPatch, value: float, loss: bool, on_device: bool
) -> None:
    """By asking on the host, and by the way of an accelerator: fused kernels that are told not to."""
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1, fused=True)
    monkeypatch.setattr(step, "_decides_itself", lambda *_: on_device)

    def update(finite: bool) -> None:
        optimizer.zero_grad()
        model(torch.ones(2, 5)).square().sum().backward()
        if not finite and not loss:
            model.weight.grad[1, 1] = value  # type: ignore[index]
        step._update(optimizer, torch.tensor(finite))

    for _ in range(2):
        update(True)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
    update(False)
    after = (model.state_dict(), optimizer.state_dict()["state"])
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert all(torch.equal(before[1][i][name], after[1][i][name]) for i in before[1] for name in before[1][i])
    update(True)
    assert not torch.equal(before[0]["weight"], model.weight)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("loss", [True, False])
def test_a_skipped_step_is_counted_recorded_and_survives_a_resume(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: bool
) -> None:
    monkeypatch.setattr(step, "_backward", poisoned({3, 5, 6}, float("nan"), loss=loss))
    missing = "loss" if loss else "gradient_norm"
    config, events = run_config(logging__log_interval=1), list[Event]()
    pretrain(config, data=data, out=tmp_path / "run", on_event=events.append)
    found = load_checkpoint(tmp_path / "run" / LAST_NAME)
    assert (found.skipped_steps, found.skipped_in_row) == (3, 0)
    assert all(bool(tensor.isfinite().all()) for tensor in found.model.values())
    rows = metrics.read(tmp_path / "run")
    assert [row["step"] for row in rows if "skipped_rows" in row] == [4, 6, 7]
    assert [row["skipped_steps"] for row in rows if "lr" in row] == [0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 3, 3]
    assert [row["step"] for row in rows if "lr" in row and missing not in row] == [4, 6, 7]
    assert "NaN" not in (tmp_path / "run" / metrics.NAME).read_text()
    assert [text for text in warnings(events) if text.startswith("step ")] == [
        f"step {number} is skipped: its loss or gradient is not finite" for number in (4, 6, 7)
    ]
    stop = on(Stepped, 6, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(StoppedError):
        pretrain(config, data=data, out=tmp_path / "cut", on_event=stop)
    assert load_checkpoint(tmp_path / "cut" / LAST_NAME).skipped_in_row == 1
    pretrain(config, data=data, out=tmp_path / "cut")
    assert same(tmp_path / "cut", tmp_path / "run")


def test_the_recorded_rows_are_those_of_the_batch(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alm.corpus.split import TRAIN
    from alm.packing.shards import open_packed

    seen: list[torch.Tensor] = []
    real = poisoned({3}, float("nan"), loss=True)

    def noting(state: Any, batch: Any, **keywords: Any) -> Any:
        if state.step == 3:
            seen.append(batch.inputs)
        return real(state, batch, **keywords)

    monkeypatch.setattr(step, "_backward", noting)
    pretrain(run_config(), data=data, out=tmp_path / "run")
    (record,) = [row for row in metrics.read(tmp_path / "run") if "skipped_rows" in row]
    stream = open_packed(data).split(TRAIN)
    found = torch.stack(
        [torch.from_numpy(stream.tokens(row * 16, 16).astype("int64")) for row in record["skipped_rows"]]
    )
    assert torch.equal(found, torch.cat(seen))


def test_too_many_in_a_row_end_the_run_at_the_last_good_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count goes over a resume: four before it and one after it are five."""
    config, out = run_config(training__max_skipped_in_row=5), tmp_path / "run"
    monkeypatch.setattr(step, "_backward", poisoned(set(range(5, 12)), float("inf"), loss=False))
    with pytest.raises(StoppedError):
        pretrain(config, data=data, out=out, on_event=on(Stepped, 9, lambda: signal.raise_signal(signal.SIGINT)))
    events: list[Event] = []
    with pytest.raises(AlmError, match="no longer finite: 5 steps in a row were skipped, up to step 10") as caught:
        pretrain(config, data=data, out=out, on_event=events.append)
    assert re.search("alm data show --run .* --step 10.*optim.lr", str(caught.value.hint))
    assert [event.step for event in events if isinstance(event, Stepped)] == []
    assert numbered(out)[0].name == "ckpt-step000009-interrupt.pt"


def test_a_few_in_a_row_and_then_a_good_one_go_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "_backward", poisoned({1, 2, 4, 5, 7, 8}, float("nan"), loss=True))
    pretrain(run_config(training__max_skipped_in_row=3), data=data, out=tmp_path / "run")
    assert load_checkpoint(tmp_path / "run" / LAST_NAME).skipped_steps == 6


# ---- retention and configuration


def test_the_best_checkpoint_is_that_of_the_best_validation(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate is far too high from step 10 on, so that the best is step 9, which no interval asks for."""
    monkeypatch.setattr("alm.training.loop.lr_factor", lambda _, number: 1.0 if number < 9 else 100.0)
    out = tmp_path / "run"
    config = run_config(
        training__keep_best=True, training__keep_last=1, training__keep_every=5, validation__interval=3, optim__lr=0.05
    )
    pretrain(config, data=data, out=out)
    scores = {row["step"]: row["bits_per_byte"] for row in metrics.read(out) if "bits_per_byte" in row}
    best = min(scores, key=lambda number: scores[number])
    assert verify(out / BEST_NAME).step == best == 9
    assert {step_of(path) for path in numbered(out)} == {5, 10, best, STEPS}
    promised = CheckpointMetadata.model_validate_json((out / f"ckpt-step{best:06d}.json").read_text())
    assert promised.bits_per_byte == scores[best]


def test_all_differences_are_shown_at_once(data: Path, uninterrupted: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in uninterrupted.iterdir()}
    with pytest.raises(ConfigError) as caught:
        pretrain(run_config(model__d_model=32, optim__lr=0.5, training__keep_last=9), data=data, out=uninterrupted)
    assert caught.value.message.splitlines()[1:] == [
        "  model.d_model  16 -> 32",
        "  optim.lr       0.01 -> 0.5",
        "  these other changes are allowed:",
        "  training.keep_last  3 -> 9",
    ]
    assert {path.name: path.stat().st_mtime_ns for path in uninterrupted.iterdir()} == before


def test_what_resuming_changes_is_told(data: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    pretrain(run_config(), data=data, out=tmp_path / "run")
    changed = run_config(training__max_steps=14, training__keep_every=7)
    pretrain(changed, data=data, out=tmp_path / "run", on_event=events.append)
    notes = [event.message for event in events if isinstance(event, Noted)]
    assert notes == [
        "resuming with changed settings\n  training.max_steps   12 -> 14\n  training.keep_every  None -> 7"
    ]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["training"]["keep_every"] == 7


def test_the_page_lists_what_resuming_may_change(repository: Path) -> None:
    text = (repository / "docs/formats.md").read_text("utf-8")
    part = text.partition("**Resuming** may change only ")[2].partition(". ")[0]
    assert set(re.findall(r"`([a-z_.]+)`", part)) == run_folder.MUTABLE


def test_a_finished_run_that_is_asked_for_fewer_steps_stays_as_it_is(tmp_path: Path) -> None:
    data, out, config = write_packed(tmp_path / "data")[0], tmp_path / "run", run_config()
    pretrain(config, data=data, out=out)
    before = (out / run_folder.METADATA_NAME).read_bytes()
    steps = config.training.max_steps
    events: list[Event] = []
    pretrain(run_config(training__max_steps=steps // 2), data=data, out=out, on_event=events.append)
    assert (out / run_folder.METADATA_NAME).read_bytes() == before
    assert Noted(f"`{out}` is up to date: finished at step {steps}") in events


def test_links_of_a_finished_run_are_made_right_and_a_folder_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out, config = write_packed(tmp_path / "data")[0], tmp_path / "run", run_config()
    pretrain(config, data=data, out=out)
    (out / LAST_NAME).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        pretrain(config, data=data, out=out)
    assert not (out / LAST_NAME).exists()
    pretrain(config, data=data, out=out)
    assert verify(out / LAST_NAME).step == config.training.max_steps


@pytest.mark.slow
def test_what_follows_the_last_step_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the last save leaves a checkpoint between two that are due: samples and score are not there yet."""
    data, config = write_packed(tmp_path / "data")[0], run_config()
    pretrain(config, data=data, out=tmp_path / "whole")
    out, last, plain = tmp_path / "run", config.training.max_steps, background.save_checkpoint

    def failing(checkpoint: Checkpoint, *args: Any, **keywords: Any) -> Path:
        if checkpoint.step == last - 1 or (checkpoint.step == last and not keywords.get("interrupted")):
            raise AlmError("the disk is broken")
        return plain(checkpoint, *args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(background, "save_checkpoint", failing)
        with pytest.raises(AlmError, match="the disk is broken"):
            pretrain(config, data=data, out=out)
    pretrain(config, data=data, out=out)
    assert verify(out / LAST_NAME).path.samefile(out / name(last))
    for file in (metrics.NAME, samples.NAME):
        rows = [metrics.without_clock(metrics.read(folder, name=file)) for folder in (tmp_path / "whole", out)]
        assert rows[0] == rows[1]
