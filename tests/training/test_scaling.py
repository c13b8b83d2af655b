"""fp16: gradients are those of fp32 but for rounding, whatever the loss scale; what overflows is left out."""

from __future__ import annotations

import copy
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import run_config
from torch import Tensor

from alm.checkpoint.format import LAST_NAME
from alm.checkpoint.load import load_checkpoint
from alm.data.loader import MicroBatch
from alm.device import Choice, choose
from alm.errors import AlmError, StoppedError
from alm.events import Event, Noted, Stepped, Warned
from alm.training import state as training_state
from alm.training import step
from alm.training.monitoring import metrics
from alm.training.pretrain import pretrain
from alm.training.state import LossScaler, TrainState, init_state
from alm.training.step import StepResult, train_step

CPU, HALF = choose("cpu", precision="fp32"), choose("cpu", precision="fp16")
# fp16 keeps 11 bits; two blocks round a gradient some ten times.
HALF_TOLERANCE = 3e-3
# With losses of its own that are as large as that of the text.
DUAL = {"kind": "dual", "small_hidden_size": 16, "balance_weight": 1.0, "z_weight": 1.0}
YES, NO = torch.tensor(True), torch.tensor(False)
LOSS, NAN = torch.tensor(2.0), torch.tensor(float("nan"))


def test_the_scale_falls_at_an_overflow_and_rises_when_there_was_none_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_state, "GROWTH_INTERVAL", 3)
    scaler, scales = LossScaler(torch.device("cpu")), []
    for is_finite in [YES, YES, YES, YES, YES, NO, YES, YES, YES, NO, NO]:
        assert bool(scaler.update(loss=LOSS, is_finite=is_finite)) == (not is_finite)
        scales.append(float(scaler.scale) / 2**16)
    assert scales == [1, 1, 2, 2, 2, 1, 1, 1, 2, 1, 0.5]


def test_a_loss_that_is_no_number_is_not_for_the_scale_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_state, "GROWTH_INTERVAL", 2)
    scaler = LossScaler(torch.device("cpu"))
    assert not scaler.update(loss=NAN, is_finite=NO)
    assert float(scaler.scale) == 2**16
    scaler.update(loss=LOSS, is_finite=YES)
    scaler.update(loss=NAN, is_finite=NO)  # good steps are counted anew
    scaler.update(loss=LOSS, is_finite=YES)
    assert float(scaler.scale) == 2**16


def test_the_scale_has_a_floor_and_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_state, "GROWTH_INTERVAL", 1)
    scaler = LossScaler(torch.device("cpu"))
    told = [bool(scaler.update(loss=LOSS, is_finite=NO)) for _ in range(20)]
    assert (told, float(scaler.scale)) == ([True] * 16 + [False] * 4, 1.0)
    for _ in range(40):
        scaler.update(loss=LOSS, is_finite=YES)
    assert float(scaler.scale) == 2.0**24


def stepped(choice: Choice, *, scale: float | None = None, targets: int = 32, **changes: Any) -> tuple[Any, StepResult]:
    """A step of two micro-batches; the state's gradients, clipped, are still there."""
    state = init_state(run_config(model__vocab_size=300, **changes), choice)
    if scale is not None:
        assert state.scaler is not None
        state.scaler.scale = torch.tensor(scale)
    ids = torch.randint(300, (2, 17), generator=torch.Generator().manual_seed(0))
    batches = [MicroBatch(row[None, :-1], row[None, 1:]) for row in ids]
    result = train_step(
        state, batches, targets=targets, choice=choice, lr_factor=1.0, clip_norm=0.1, seed=1, should_stop=bool
    )
    assert result is not None
    return state, result


def gradients(state: TrainState) -> Tensor:
    return torch.cat([p.grad.flatten() for p in state.model.parameters() if p.grad is not None])


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("feedforward", ["swiglu", DUAL], ids=["swiglu", "dual"])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_a_step_is_that_of_fp32_but_for_rounding(feedforward: Any, z_loss: float) -> None:
    changes = {"model__feedforward": feedforward, "training__z_loss": z_loss}
    (exact, wanted), (half, found) = stepped(CPU, **changes), stepped(HALF, **changes)
    assert wanted.gradient_norm > 0.1  # clipped
    assert (bool(found.is_finite), bool(found.overflowed)) == (True, False)
    assert float(found.loss) == pytest.approx(float(wanted.loss), rel=HALF_TOLERANCE)
    assert float(found.gradient_norm) == pytest.approx(float(wanted.gradient_norm), rel=HALF_TOLERANCE)
    assert float(gradients(half).norm()) == pytest.approx(0.1, rel=1e-4)
    assert distance(gradients(half), gradients(exact)) < HALF_TOLERANCE
    assert not torch.equal(gradients(half), gradients(exact))


def test_the_scale_keeps_small_gradients_and_changes_nothing_else() -> None:
    """Each token of so many has a gradient below what fp16 can hold."""
    wanted = gradients(stepped(CPU, targets=4_000_000)[0])
    without, low, high = (gradients(stepped(HALF, scale=s, targets=4_000_000)[0]) for s in (1.0, 2.0**16, 2.0**18))
    assert distance(without, wanted) > 0.1
    assert distance(low, wanted) < HALF_TOLERANCE
    assert distance(high, low) < HALF_TOLERANCE / 10


def test_an_overflow_touches_neither_weights_nor_moments() -> None:
    state, _ = stepped(HALF, scale=2.0**10)
    before = copy.deepcopy((state.model.state_dict(), state.optimizer.state_dict()["state"]))
    state.scaler.scale = torch.tensor(2.0**40)
    batch = MicroBatch(torch.arange(16)[None], torch.arange(16)[None])
    result = train_step(state, [batch], targets=16, choice=HALF, lr_factor=1.0, clip_norm=0.1, seed=1, should_stop=bool)
    assert result is not None
    assert (bool(result.is_finite), bool(result.overflowed), state.step) == (False, True, 2)
    assert bool(torch.isfinite(result.loss))
    after = (state.model.state_dict(), state.optimizer.state_dict()["state"])
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert all(torch.equal(before[1][i][name], after[1][i][name]) for i in before[1] for name in before[1][i])


def overflowing(steps: set[int]) -> Any:
    """`step._backward` one of whose gradients is infinite in `steps`, numbered from 0."""
    real = step._backward

    def backward(state: TrainState, *arguments: Any, **keywords: Any) -> Any:
        found = real(state, *arguments, **keywords)
        if state.step in steps:
            next(state.model.parameters()).grad[0, 0] = torch.inf  # type: ignore[index]
        return found

    return backward


def half_config(**changes: Any) -> Any:
    return run_config(training__precision="fp16", logging__log_interval=1, **changes)


def test_overflows_in_a_row_are_no_fault_until_the_scale_is_at_its_floor(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_state, "FIRST_SCALE", 16.0)
    monkeypatch.setattr(step, "_backward", overflowing(set(range(3, 12))))
    events: list[Event] = []
    with pytest.raises(AlmError, match="2 steps in a row were skipped, up to step 9"):
        pretrain(half_config(training__max_skipped_in_row=2), data=data, out=tmp_path / "run", on_event=events.append)
    rows = metrics.read(tmp_path / "run")
    assert [row["loss_scale"] for row in rows if "lr" in row] == [16, 16, 16, 8, 4, 2, 1, 1]
    assert [(row["step"], row.get("overflowed", False)) for row in rows if "skipped_rows" in row] == [
        *((number, True) for number in range(4, 8)),
        *((number, False) for number in (8, 9)),
    ]
    said = [event for event in events if isinstance(event, Noted | Warned) and event.message.startswith("step ")]
    assert [type(event) for event in said] == [Noted] * 4 + [Warned] * 2
    assert said[0].message == "step 4 is skipped: a gradient overflowed fp16; the loss is scaled less now"


@pytest.mark.slow
def test_a_resumed_run_has_the_scale_and_ends_in_the_same_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_state, "GROWTH_INTERVAL", 4)
    monkeypatch.setattr(step, "_backward", overflowing({4, 5}))
    pretrain(half_config(), data=data, out=tmp_path / "whole")

    def stop(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 7:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(StoppedError):
        pretrain(half_config(), data=data, out=tmp_path / "cut", on_event=stop)
    assert load_checkpoint(tmp_path / "cut" / LAST_NAME).loss_scaler == {"scale": 2.0**15, "good_steps": 1}
    pretrain(half_config(), data=data, out=tmp_path / "cut")
    ours, theirs = (load_checkpoint(tmp_path / name / LAST_NAME) for name in ("cut", "whole"))
    assert all(torch.equal(ours.model[name], theirs.model[name]) for name in theirs.model)
    assert ours.loss_scaler == theirs.loss_scaler
    assert (ours.skipped_steps, ours.skipped_in_row) == (theirs.skipped_steps, theirs.skipped_in_row) == (2, 0)
    rows = [metrics.without_clock(metrics.read(tmp_path / name)) for name in ("cut", "whole")]
    assert rows[0] == rows[1]
    scales = [row["loss_scale"] / 2**15 for row in rows[0] if "lr" in row]
    assert scales == [2, 2, 2, 4, 2, 1, 1, 1, 1, 2, 2, 2]


def test_other_precisions_have_no_scale(data: Path, tmp_path: Path) -> None:
    pretrain(run_config(), data=data, out=tmp_path / "run")
    assert load_checkpoint(tmp_path / "run" / LAST_NAME).loss_scaler is None
    assert not any("loss_scale" in row for row in metrics.read(tmp_path / "run"))
