"""What training changes: weights, optimizer, step. Making it, and turning it into a checkpoint and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from alm import kinds
from alm.checkpoint.format import Checkpoint, Values
from alm.device import Choice
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.training.config import RunConfig


@dataclass
class TrainState:
    """`step` counts finished updates, those among them that were skipped too.

    `is_whole` is false while an update is under way: what it leaves when it fails must not be saved.
    """

    model: Transformer
    optimizer: torch.optim.Optimizer
    step: int = 0
    skipped_steps: int = 0
    skipped_in_row: int = 0
    is_whole: bool = True

    def is_finite(self) -> bool:
        """Whether every weight is a number: an update after a finite loss may overflow."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters())


def fresh(config: RunConfig, choice: Choice) -> TrainState:
    """A state at step 0. The weights depend on the seed alone, not on the device."""
    model = Transformer(config.model)
    initialize(model, seed=config.training.seed)
    model.to(choice.device)
    optimizer = kinds.module_of(config.optim).build(config.optim, model)
    return TrainState(model, optimizer)


def restore_(state: TrainState, checkpoint: Checkpoint, choice: Choice) -> None:
    """Put `checkpoint` into `state`, whose shapes it must have.

    The random state is restored for what may draw from it; dropout does not, it is seeded by its step.
    """
    state.model.load_state_dict(checkpoint.model)
    state.optimizer.load_state_dict(checkpoint.optimizer)
    state.step = checkpoint.step
    state.skipped_steps, state.skipped_in_row = checkpoint.skipped_steps, checkpoint.skipped_in_row
    _restore_random(checkpoint.rng[0], choice.device)


def snapshot(
    state: TrainState, config: RunConfig, *, environment: dict[str, str], tokenizer_sha256: str, data_sha256: str
) -> Checkpoint:
    """`state` as a checkpoint. It shares the tensors: copy or write it before the next step."""
    return Checkpoint(
        step=state.step,
        samples_seen=state.step * config.training.sequences_per_step,
        model=state.model.state_dict(),
        optimizer=state.optimizer.state_dict(),
        rng=[_random(next(state.model.parameters()).device)],
        config=config.model_dump(mode="json"),
        environment=environment,
        tokenizer_sha256=tokenizer_sha256,
        data_sha256=data_sha256,
        skipped_steps=state.skipped_steps,
        skipped_in_row=state.skipped_in_row,
    )


def _random(device: torch.device) -> Values:
    states: Values = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore_random(states: dict[str, Any], device: torch.device) -> None:  # Any: tensors
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
