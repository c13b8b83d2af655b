"""Checks that a checkpoint is read back as it was written, and that a run resumes from it exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from alm import formatting
from alm.checkpoint.format import Checkpoint
from alm.checkpoint.load import load_checkpoint
from alm.checkpoint.save import save_checkpoint
from alm.device import Choice
from alm.doctor import models
from alm.doctor.check import REPORT, Check, judged
from alm.doctor.end_to_end import step_loss
from alm.training.config import RunConfig
from alm.training.state import TrainState, init_state, restore_, snapshot

SAVED, RESUMED = "checkpoint round trip", "exact resume"
_BEFORE, _AFTER = 4, 4

Save = Callable[[Checkpoint, Path], Path]
Load = Callable[[Path], Checkpoint]


def round_trips(
    config: RunConfig, choice: Choice, folder: Path, *, save: Save = save_checkpoint, load: Load = load_checkpoint
) -> Check:
    """Check that a checkpoint saved in `folder` and loaded again is the same, bit for bit."""
    state = train_steps(init_state(config, choice), choice, steps=_BEFORE)
    before = checkpoint_of(state, config)
    after = load(save(before, folder))
    different = [name for name in before.values() if not same(before.values()[name], after.values().get(name))]
    size = sum(tensor.nbytes for tensor in before.model.values())
    return judged(
        SAVED,
        holds=not different,
        measured=f"{len(before.values())} parts, {formatting.size(size)} of weights, the same bits"
        if not different
        else f"{', '.join(different)} changed on the way",
        wanted="every bit of every part",
        cause="data read from this disk is not what was written",
        cure=f"use a folder on another disk: `alm doctor --out FOLDER`, then `alm pretrain --out`; {REPORT}",
    )


def resumes_exactly(
    config: RunConfig, choice: Choice, folder: Path, *, save: Save = save_checkpoint, load: Load = load_checkpoint
) -> Check:
    """Check that a run that is saved, loaded and continued ends in the same bits as an undisturbed one."""
    undisturbed = train_steps(init_state(config, choice), choice, steps=_BEFORE + _AFTER)
    path = save(checkpoint_of(train_steps(init_state(config, choice), choice, steps=_BEFORE), config), folder)
    resumed = init_state(config, choice)
    restore_(resumed, load(path), choice)
    train_steps(resumed, choice, steps=_AFTER)
    ended = checkpoint_of(resumed, config)
    different = _differing(checkpoint_of(undisturbed, config), ended)
    again = train_steps(init_state(config, choice), choice, steps=_BEFORE + _AFTER) if different else undisturbed
    if different and _differing(checkpoint_of(undisturbed, config), checkpoint_of(again, config)):
        return _varies(choice)
    return judged(
        RESUMED,
        holds=not different,
        measured=f"after {_BEFORE} + {_AFTER} steps weights and moments are "
        + ("those of an undisturbed run" if not different else "different"),
        wanted="the same bits",
        cause=f"{', '.join(different)} of the resumed run are not those of the undisturbed one",
        cure=f"run `alm verify-resume`; {REPORT}",
    )


def _varies(choice: Choice) -> Check:
    """Return the note that two undisturbed runs differ as well: resuming is not at fault."""
    return Check(
        RESUMED,
        "ok",
        "two undisturbed runs differ too",
        "the same bits, where a device computes the same twice",
        f"{choice.device} adds up in an order that changes from run to run, so no two runs are equal bit for bit",
        "add `--set training.reproducible=true` to `alm pretrain`, which is slower",
    )


def train_steps(state: TrainState, choice: Choice, *, steps: int) -> TrainState:
    """Train `state` for this many steps; the number of a step determines its batch."""
    for _ in range(steps):
        step_loss(state, models.batch(state.model.config, seed=state.step), choice)
    return state


def checkpoint_of(state: TrainState, config: RunConfig) -> Checkpoint:
    """Take a checkpoint of `state` that later steps do not change."""
    shared = snapshot(state, config, environment={"made by": "alm doctor"}, tokenizer_sha256="", data_sha256="")
    return Checkpoint(**{name: _copied(value) for name, value in vars(shared).items()})


def _copied(value: Any) -> Any:  # Any: what a checkpoint holds
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _differing(first: Checkpoint, second: Checkpoint) -> list[str]:
    names = ("step", "model", "trained", "optimizer", "rng", "loss_scaler")
    return [name for name in names if not same(vars(first)[name], vars(second)[name])]


def same(first: Any, second: Any) -> bool:  # Any: what a checkpoint holds
    """Whether both are equal, tensors in type, shape and every bit."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        if (first.dtype, first.shape) != (second.dtype, second.shape):
            return False
        return torch.equal(*(x.contiguous().view(-1).view(torch.uint8) for x in (first, second)))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)
