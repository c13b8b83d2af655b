"""One optimizer update: micro-batches in, gradients summed, clipped, applied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from alm.data.loader import MicroBatch
from alm.device import Choice, autocast
from alm.model.layers import step_keys
from alm.optim.groups import PEAK_LR
from alm.training.parallel import clip_
from alm.training.state import TrainState


@dataclass(frozen=True)
class StepResult:
    """Scalars over all ranks, on the device: reading them waits for it. `loss` is in nats per target token.

    If `is_finite` is false, the update was skipped; if `overflowed` is true, a smaller loss scale may fix that.
    """

    loss: torch.Tensor
    gradient_norm: torch.Tensor
    is_finite: torch.Tensor
    overflowed: torch.Tensor


def train_step(
    state: TrainState,
    micro_batches: Sequence[MicroBatch],
    *,
    targets: int,
    choice: Choice,
    lr_factor: float,
    clip_norm: float,
    seed: int,
    should_stop: Callable[[], bool],
    z_weight: float = 0.0,
) -> StepResult | None:
    """Update `state` with the gradients of all `micro_batches`; return None, without an update, when asked to stop.

    `micro_batches` are those of this rank; every rank has the same number of sequences. `lr_factor` scales every
    group's peak rate. Losses are summed and divided by `targets`, the number of target tokens in the step over all
    ranks, so every token weighs the same however the step is split. `z_weight` is that of `alm.model.loss.losses`.
    `should_stop` must return the same answer on every rank.
    """
    losses = []  # kept on the device: reading one in a step would wait for it
    # The position of a sequence in the global step. Dropout is keyed by it, so masks do not depend on the split.
    place = state.parallelism.world.rank * sum(len(batch.inputs) for batch in micro_batches)
    state.model.train()
    state.parallelism.start_step()
    for number, batch in enumerate(micro_batches):
        if should_stop():
            return None
        keys = _dropout_keys(state, batch, seed=seed, first=place)
        place += len(batch.inputs)
        with state.parallelism.micro_batch(is_last=number == len(micro_batches) - 1):
            losses.append(_backward(state, batch, keys=keys, choice=choice, targets=targets, z_weight=z_weight))
    return _apply_gradients(state, state.parallelism.finish_step(losses), lr_factor=lr_factor, clip_norm=clip_norm)


def _apply_gradients(state: TrainState, loss: torch.Tensor, *, lr_factor: float, clip_norm: float) -> StepResult:
    """Clip the gradients of the step, whose `loss` is that of all ranks, and update the weights with them."""
    if state.scaler is not None:
        state.scaler.unscale_(state.model.parameters())
    norm = clip_(state.model.parameters(), clip_norm)
    # One answer for the step: both are sums over all ranks, so all ranks get the same one. A loss or gradient that is
    # not finite would make every weight so; such a step changes nothing and is counted.
    is_finite = torch.isfinite(loss) & torch.isfinite(norm)
    # A factor on each group's own peak: matrices, vectors and embeddings have different rates (`alm.optim.groups`).
    for group in state.optimizer.param_groups:
        group["lr"] = group[PEAK_LR] * lr_factor
    state.is_consistent = False  # an error inside the update leaves half of the weights changed: never save those
    _update(state.optimizer, is_finite)
    overflowed = torch.zeros_like(is_finite)
    if state.scaler is not None:
        overflowed = state.scaler.update(loss=loss, is_finite=is_finite)
    if state.average is not None:
        state.average.update(state.step + 1)
    state.step += 1
    state.is_consistent = True
    return StepResult(loss, norm, is_finite, overflowed)


def _update(optimizer: torch.optim.Optimizer, is_finite: torch.Tensor) -> None:
    """Step `optimizer`, or leave its moments and the weights unchanged, to the bit.

    This does not wait for an accelerator if the optimizer can decide on the device, as PyTorch's fused optimizers do
    for `torch.amp.GradScaler`.
    """
    if not _decides_itself(optimizer, is_finite.device):
        if bool(is_finite):
            optimizer.step()
        return
    optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined] # read by the fused kernels
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.step()


def _decides_itself(optimizer: torch.optim.Optimizer, device: torch.device) -> bool:
    """Whether the kernels check by themselves. Asking a CPU costs nothing; on Metal this is untested."""
    return device.type == "cuda" and bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def _dropout_keys(state: TrainState, batch: MicroBatch, *, seed: int, first: int) -> torch.Tensor | None:
    """Return the dropout key of each sequence, from its place in the step and not in its micro-batch."""
    if not state.model.config.dropout:
        return None
    keys = step_keys(len(batch.inputs), seed=seed, step=state.step, first=first)
    return keys.to(state.parallelism.world.device, non_blocking=True)


def _backward(
    state: TrainState,
    batch: MicroBatch,
    *,
    keys: torch.Tensor | None,
    choice: Choice,
    targets: int,
    z_weight: float,
) -> torch.Tensor:
    # On CUDA the loader has pinned these, so that the copies overlap with the micro-batch before.
    inputs = batch.inputs.to(choice.device, non_blocking=True)
    wanted = batch.targets.to(choice.device, non_blocking=True)
    documents = None if batch.documents is None else batch.documents.to(choice.device, non_blocking=True)
    scale = 1.0 if state.scaler is None else state.scaler.scale
    # The loss computes gradients in its forward pass, chunk by chunk, so that logits (B, T, V) never exist at once
    # (`alm.model.loss`): the scale of fp16 must be part of its divisor.
    divisor = max(targets, 1) / scale
    with autocast(choice.device, choice.precision):
        total, nats, auxiliary = state.parallelism.loss(
            inputs, wanted, divisor=divisor, z_weight=z_weight, keys=keys, documents=documents
        )
    # The auxiliary loss is a mean per token: weight it by this micro-batch's share of the step's targets. Only the loss
    # of the text is reported.
    loss = total if auxiliary is None else total + auxiliary * (batch.target_count() / targets * scale)
    # DDP and FSDP average over ranks, and the sum is wanted; without them, a product with 1 would cost a kernel.
    if state.parallelism.scale != 1:
        loss = loss * state.parallelism.scale
    loss.backward()  # type: ignore[no-untyped-call]
    return nats / scale
