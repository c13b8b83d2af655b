"""One optimizer update: micro-batches in, gradients summed, clipped, applied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import nn

from alm.data.loader import MicroBatch
from alm.device import Choice, autocast
from alm.model.transformer import Transformer
from alm.optim.groups import PEAK_LR
from alm.training.state import TrainState

Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class StepResult:
    """Scalars on the device: reading them waits for it. `loss` is nats per target token.

    Where `is_finite` is false the update was left out.
    """

    loss: torch.Tensor
    gradient_norm: torch.Tensor
    is_finite: torch.Tensor


def train_step(
    state: TrainState,
    forward: Forward,
    micro_batches: Sequence[MicroBatch],
    *,
    choice: Choice,
    lr_factor: float,
    clip_norm: float,
    seed: int,
    should_stop: Callable[[], bool],
    z_weight: float = 0.0,
) -> StepResult | None:
    """Update `state` with the gradients of all `micro_batches`; None, and no update, when asked to stop.

    `forward` is the model, or the model compiled; `lr_factor` scales every group's peak rate. Losses are
    summed and divided by the number of target tokens of the whole step, so every token weighs the same
    however the step is cut up. `z_weight` is that of `alm.model.loss.losses`.
    """
    targets = sum(batch.target_count() for batch in micro_batches)
    total = torch.zeros((), device=choice.device)
    state.model.train()
    state.optimizer.zero_grad(set_to_none=True)
    for number, batch in enumerate(micro_batches):
        if should_stop():
            return None
        _seed_dropout(state.model, seed=seed, step=state.step, number=number)
        loss = _backward(state, forward, batch, choice=choice, targets=targets, z_weight=z_weight)
        total += loss
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), clip_norm)
    # One answer for the whole step: where several processes share it, they must agree on this one.
    is_finite = torch.isfinite(total) & torch.isfinite(norm)
    for group in state.optimizer.param_groups:
        group["lr"] = group[PEAK_LR] * lr_factor
    state.is_whole = False
    _update(state.optimizer, is_finite)
    state.step += 1
    state.is_whole = True
    return StepResult(total, norm, is_finite)


def _update(optimizer: torch.optim.Optimizer, is_finite: torch.Tensor) -> None:
    """Step `optimizer`, or leave its moments and the weights as they are, to the bit.

    An accelerator is not waited for where the optimizer decides there by itself, as PyTorch's fused ones do for
    `torch.amp.GradScaler`.
    """
    if not _decides_itself(optimizer, is_finite.device):
        if bool(is_finite):
            optimizer.step()
        return
    optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined] # read by the fused kernels
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.step()


def _decides_itself(optimizer: torch.optim.Optimizer, device: torch.device) -> bool:
    """Whether the kernels look by themselves. A CPU is asked at no cost; of Metal nobody here could try it."""
    return device.type == "cuda" and bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def _backward(
    state: TrainState, forward: Forward, batch: MicroBatch, *, choice: Choice, targets: int, z_weight: float
) -> torch.Tensor:
    inputs = batch.inputs.to(choice.device, non_blocking=True)
    wanted = batch.targets.to(choice.device, non_blocking=True)
    with autocast(choice.device, choice.precision):
        found = state.model.losses(forward(inputs), wanted, divisor=targets, z_weight=z_weight)
    auxiliary = state.model.auxiliary_loss()
    # Weighted as this micro-batch is in the step. What is reported is the loss of the text alone.
    whole = found.total if auxiliary is None else found.total + auxiliary * (batch.target_count() / targets)
    whole.backward()  # type: ignore[no-untyped-call]
    return found.nats


def _seed_dropout(model: Transformer, *, seed: int, step: int, number: int) -> None:
    """Dropout as a function of (seed, step, micro-batch): a discarded step is redone with the same masks."""
    if model.config.dropout:
        key = sha256(f"{seed}/{step}/{number}".encode()).digest()
        torch.manual_seed(int.from_bytes(key[:8], "big") >> 1)
