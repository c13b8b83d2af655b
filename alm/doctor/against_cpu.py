"""Device against CPU, in fp32: the same weights and ids must give the same logits, loss and gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from alm.data.loader import MicroBatch
from alm.doctor import models
from alm.doctor.check import REPORT, Check, judged, skipped
from alm.doctor.tolerance import distance, rounding
from alm.model.config import ModelConfig

NAME = "device against CPU"
# The backward pass has twice the operations of the forward pass, whose rounding it starts from.
_GRADIENT_FACTOR = 3.0


@dataclass(frozen=True)
class Passed:
    """Results of one forward and backward pass."""

    logits: Tensor
    loss: Tensor
    gradients: dict[str, Tensor]


def passed(config: ModelConfig, batch: MicroBatch, device: torch.device) -> Passed:
    """Run a pass of the same model on `device`."""
    model = models.lively(config, device)
    hidden = model(batch.inputs.to(device))
    loss = model.losses(hidden, batch.targets.to(device), divisor=batch.target_count()).total
    loss.backward()  # type: ignore[no-untyped-call]
    named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return Passed(model.logits(hidden), loss, named)


def same(found: Passed, wanted: Passed, config: ModelConfig, *, device: str) -> Check:
    """Whether `found` on `device` equals the CPU's results, `wanted`, except for rounding."""
    bound = rounding(config, "fp32")
    bounds = {"logits": bound, "loss": bound, **dict.fromkeys(map(_title, wanted.gradients), _GRADIENT_FACTOR * bound)}
    distances = {"logits": distance(found.logits, wanted.logits), "loss": distance(found.loss, wanted.loss)}
    for name, gradient in wanted.gradients.items():
        there = found.gradients.get(name)
        distances[_title(name)] = math.inf if there is None else distance(there, gradient)
    worst = max(distances, key=lambda name: distances[name] / bounds[name])
    return judged(
        NAME,
        holds=distances[worst] <= bounds[worst],
        measured=f"{device} and CPU differ by {distances[worst]:.1e} at most, {worst}",
        wanted=f"below {bounds[worst]:.1e}, what rounding in fp32 makes of {config.n_layers} layers",
        cause=f"the {worst} differs on this device: one of its kernels is wrong, or it computes products of fp32 in "
        "fewer digits (TF32)",
        cure=f"run `unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE` if set, else `alm pretrain --device cpu`, and {REPORT}",
    )


def _title(name: str) -> str:
    return f"gradient of `{name}`"


def nothing_to_compare() -> Check:
    """Return the skipped check of a CPU."""
    return skipped(NAME, "this is the CPU: there is nothing to compare")
