"""Checks that a model can learn on this device: its first loss, its gradients, overfitting one batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from alm.data.loader import MicroBatch
from alm.device import Choice, autocast
from alm.doctor.check import Check, judged, remedy
from alm.model.transformer import Transformer
from alm.training.state import TrainState
from alm.training.step import train_step

FIRST_LOSS, GRADIENTS, OVERFIT = "first loss", "gradients", "overfit one batch"
FIRST_LOSS_NATS = 0.3
_OVERFIT_STEPS = 40
_OVERFIT_SHARE = 0.2
_NAMED = 3
_FP16_SCALE = 1024.0


def first_loss(model: Transformer, batch: MicroBatch, choice: Choice) -> Check:
    """Check that the loss of an untrained model is the logarithm of the vocabulary size."""
    with torch.no_grad(), autocast(choice.device, choice.precision):
        hidden = model(batch.inputs.to(choice.device))
        found = float(model.losses(hidden, batch.targets.to(choice.device), divisor=batch.target_count()).nats)
    wanted = math.log(model.config.known_vocab_size)
    return judged(
        FIRST_LOSS,
        holds=abs(found - wanted) <= FIRST_LOSS_NATS,
        measured=f"{found:.3f} nats, ln V is {wanted:.3f}",
        wanted=f"{wanted:.3f} ± {FIRST_LOSS_NATS} nats, the logarithm of the vocabulary size",
        cause="the initial weights, the forward pass or the loss are wrong on this device: an untrained model must "
        "guess evenly",
        cure=remedy(choice.device),
    )


def gradients(model: Transformer, batch: MicroBatch, choice: Choice) -> Check:
    """Check that every parameter gets a gradient that is finite and not zero."""
    model.train()
    with autocast(choice.device, choice.precision):
        hidden = model(batch.inputs.to(choice.device))
        # In fp16 small gradients would vanish, so the loss is scaled, as in a run.
        scale = _FP16_SCALE if choice.precision == "fp16" else 1.0
        loss = model.losses(hidden, batch.targets.to(choice.device), divisor=batch.target_count() / scale).total
        extra = model.auxiliary_loss()
    (loss if extra is None else loss + extra).backward()  # type: ignore[no-untyped-call]
    parameters = dict(model.named_parameters())
    without = [name for name, parameter in parameters.items() if not _is_fine(parameter.grad)]
    return judged(
        GRADIENTS,
        holds=not without,
        measured=f"{len(parameters) - len(without)} of {len(parameters)} parameters have one",
        wanted="one for every parameter, finite and not zero",
        cause=f"no finite gradient reaches {_list(without)}: the backward pass breaks off there",
        cure=remedy(choice.device),
    )


def _is_fine(gradient: torch.Tensor | None) -> bool:
    return gradient is not None and bool(torch.isfinite(gradient).all()) and bool(gradient.any())


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"`{name}`" for name in names[:_NAMED]) + more


def overfitted(state: TrainState, batch: MicroBatch, choice: Choice) -> Check:
    """Check that steps on the same batch reduce its loss to a fraction."""
    losses = [step_loss(state, batch, choice) for _ in range(_OVERFIT_STEPS)]
    first, last = losses[0], losses[-1]
    return judged(
        OVERFIT,
        holds=last <= _OVERFIT_SHARE * first,
        measured=f"{first:.2f} to {last:.2f} nats in {_OVERFIT_STEPS} steps",
        wanted=f"below {_OVERFIT_SHARE * first:.2f} nats, a fifth of the first loss",
        cause="the optimizer does not follow the gradients on this device, or the gradients are wrong",
        cure=remedy(choice.device),
    )


def step_loss(state: TrainState, batch: MicroBatch, choice: Choice) -> float:
    """Train on `batch`; return its loss before the update."""
    result = train_step(
        state,
        [batch],
        targets=batch.target_count(),
        choice=choice,
        lr_factor=1.0,
        clip_norm=1.0,
        seed=0,
        should_stop=bool,
    )
    assert result is not None
    return float(result.loss)
