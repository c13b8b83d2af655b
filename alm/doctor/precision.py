"""The chosen precision against fp32, in its first losses and its speed; and in fp32 the device against the CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from alm.data.loader import MicroBatch
from alm.device import Choice, Precision, best_seconds
from alm.doctor import models
from alm.doctor.check import REPORT, Check, graded, judged, skipped
from alm.doctor.end_to_end import step_loss
from alm.doctor.tolerance import distance, rounding
from alm.model.config import ModelConfig
from alm.training.state import TrainState, init_state

LOSSES, SPEED = "precision, first losses", "precision, speed"
_STEPS = 6
_ROUNDS = 3
_SLOWER = 1.25
_CURE = "train in fp32: add `--set training.precision=fp32` to `alm pretrain`"


def first_losses(model: ModelConfig, choice: Choice, batch: MicroBatch) -> list[float]:
    """Return the losses of a run's first steps in the precision of `choice`, all on `batch`: they fall fast."""
    state = init_state(models.proportional_run_of(model), choice)
    return [step_loss(state, batch, choice) for _ in range(_STEPS)]


def same_losses(
    found: Sequence[float], wanted: Sequence[float], model: ModelConfig, precision: Precision, *, targets: int
) -> Check:
    """Whether losses in `precision`, means over `targets` targets, equal those in fp32 except for rounding."""
    # Logits are smaller than the loss at first, and rounded separately for each target: their mean is off by less.
    # Updates in proportion to gradients add the rounding of a mean over all parameters, which is smaller still.
    bound = rounding(model, precision) / math.sqrt(targets)
    shares = [abs(one - other) / other for one, other in zip(found, wanted, strict=True)]
    worst = max(shares, key=lambda share: share if share == share else float("inf"))
    return judged(
        LOSSES,
        holds=all(share <= bound for share in shares),
        measured=f"{precision} differs from fp32 by {worst:.2%} at most in {len(found)} steps",
        wanted=f"below {bound:.2%}, the effect of rounding in {precision} on a mean of {targets} losses",
        cause=f"{precision} loses more accuracy than rounding explains on this device",
        cure=_CURE,
    )


def fast_enough(seconds: float, fp32_seconds: float, precision: Precision) -> Check:
    """Return a note if the chosen precision is slower than fp32, which breaks nothing."""
    times = fp32_seconds / seconds
    return graded(
        SPEED,
        holds=True,
        is_good=seconds <= _SLOWER * fp32_seconds,
        measured=f"a step in {precision} is {times:.2f} times as fast as in fp32",
        wanted=f"at least {1 / _SLOWER:.1f} times",
        cause=f"{precision} was chosen, but fp32 is faster for this model here",
        cure=_CURE,
    )


def nothing_to_compare(name: str, choice: Choice) -> Check:
    """Return the skipped check if fp32 is the choice."""
    return skipped(name, f"fp32 is used here ({choice.precision_reason})")


def step_seconds(states: Sequence[tuple[TrainState, Choice]], batch: MicroBatch) -> list[float]:
    """Measure the seconds of a step of each state: the best of some rounds, taken in turn, after a warm-up round."""
    steps = {number: partial(step_loss, state, batch, choice) for number, (state, choice) in enumerate(states)}
    return list(best_seconds(steps, states[0][1].device, rounds=_ROUNDS).values())


def speeds(model: ModelConfig, chosen: Choice, fp32: Choice) -> tuple[float, float]:
    """Measure the seconds of a step of this model in the chosen precision, and in fp32."""
    config = models.run_of(model)
    rows = 2 if chosen.device.type == "cpu" else 8
    batch = models.batch(model, rows=rows, tokens=model.max_position_embeddings)
    first, second = step_seconds([(init_state(config, choice), choice) for choice in (chosen, fp32)], batch)
    return first, second


AGAINST_CPU = "device against CPU"
# The backward pass has twice the operations of the forward pass, whose rounding it starts from.
_GRADIENT_FACTOR = 3.0


@dataclass(frozen=True)
class PassResult:
    """Results of one forward and backward pass."""

    logits: Tensor
    loss: Tensor
    gradients: dict[str, Tensor]


def forward_backward(config: ModelConfig, batch: MicroBatch, device: torch.device) -> PassResult:
    """Run a pass of the same model on `device`."""
    model = models.random_model(config, device)
    hidden = model(batch.inputs.to(device))
    loss = model.losses(hidden, batch.targets.to(device), divisor=batch.target_count()).total
    loss.backward()  # type: ignore[no-untyped-call]
    named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return PassResult(model.logits(hidden), loss, named)


def same_as_cpu(found: PassResult, wanted: PassResult, config: ModelConfig, *, device: str) -> Check:
    """Whether `found` on `device` equals the CPU's results, `wanted`, except for rounding."""
    bound = rounding(config, "fp32")
    bounds = {"logits": bound, "loss": bound, **dict.fromkeys(map(_title, wanted.gradients), _GRADIENT_FACTOR * bound)}
    distances = {"logits": distance(found.logits, wanted.logits), "loss": distance(found.loss, wanted.loss)}
    for name, gradient in wanted.gradients.items():
        there = found.gradients.get(name)
        distances[_title(name)] = math.inf if there is None else distance(there, gradient)
    worst = max(distances, key=lambda name: distances[name] / bounds[name])
    return judged(
        AGAINST_CPU,
        holds=distances[worst] <= bounds[worst],
        measured=f"{device} and CPU differ by {distances[worst]:.1e} at most, {worst}",
        wanted=f"below {bounds[worst]:.1e}, what rounding in fp32 makes of {config.n_layers} layers",
        cause=f"the {worst} differs on this device: one of its kernels is wrong, or it computes products of fp32 in "
        "fewer digits (TF32)",
        cure=f"run `unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE` if set, else `alm pretrain --device cpu`, and {REPORT}",
    )


def _title(name: str) -> str:
    return f"gradient of `{name}`"
