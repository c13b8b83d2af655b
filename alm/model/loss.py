"""Cross entropy from hidden states in chunks, so that the logits of all tokens never exist at once.

B batch, T tokens, N = B x T rows, R rows of one chunk, D model width, V vocabulary, W rows of the matrix (V or more).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alm.model.count import chunk_rows

# fp16 ranges from 6e-8 to 65504: this leaves room above for products with weights, and below for unlikely tokens.
FP16_ROW = 256.0


class Losses(NamedTuple):
    """Sums over all tokens, divided by the given divisor, as fp32 scalars (fp64 for fp64 input)."""

    total: Tensor  # nats and the z-loss; this one is differentiated
    nats: Tensor  # -ln p(target) alone, without a gradient


def losses(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    vocab_size: int | None = None,
    divisor: float | Tensor = 1.0,
    z_weight: float = 0.0,
) -> Losses:
    """Sum -ln p(target) + z_weight ln^2 Z over all tokens, divided by `divisor`. Z sums the logits' exponentials.

    `hidden` (B, T, D); `weight` (W, D), of which the first `vocab_size` rows are tokens (absent: all); `targets` (B, T)
    int64, where negative targets do not count. The z-loss keeps Z near 1 (Chowdhery et al. 2022, PaLM,
    arXiv:2204.02311, section 5). Under autocast, matrix products use its type, and the softmax uses fp32.
    If gradients are needed, they are computed here, chunk by chunk, while the logits exist. `backward`, which can be
    called once, only scales them.
    """
    rows, answers, size = hidden.flatten(0, -2), targets.flatten(), vocab_size or len(weight)
    wanted = _wanted(answers)
    if wanted is not None:
        rows, answers = rows.index_select(0, wanted), answers[wanted]
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        made = _Losses.apply(rows, weight, answers, size, divisor, z_weight)  # type: ignore[no-untyped-call]
        return Losses(*cast("tuple[Tensor, Tensor]", made))
    found, z = _forward_only(rows, weight, answers, size)
    nats = found.sum()
    return Losses((nats + z_weight * z if z_weight else nats) / divisor, nats / divisor)


@torch.no_grad()
def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor, *, vocab_size: int | None = None) -> Tensor:
    """Return -ln p(target) of every token, (B, T), in nats, as fp32 (fp64 for fp64 input), without a gradient.

    It is 0 for negative targets.
    """
    rows, answers, size = hidden.flatten(0, -2), targets.flatten(), vocab_size or len(weight)
    wanted = _wanted(answers)
    if wanted is None:
        return _forward_only(rows, weight, answers, size)[0].view(targets.shape)
    found = torch.zeros(answers.shape, dtype=_score_type(rows), device=rows.device)
    found[wanted] = _forward_only(rows[wanted], weight, answers[wanted], size)[0]
    return found.view(targets.shape)


def _wanted(targets: Tensor) -> Tensor | None:
    """Return the indices of the rows that count, if these are fewer than half; None to compute all.

    Of conversations only answers count, and the product with the head is a fifth of a small model's step. Padding is
    left in: sums with other chunks round differently. Counting would make an accelerator wait.
    """
    if targets.device.type != "cpu":
        return None
    wanted = (targets >= 0).nonzero().squeeze(1)
    return None if not len(wanted) or 2 * len(wanted) > len(targets) else wanted


@torch.no_grad()
def _forward_only(hidden: Tensor, weight: Tensor, targets: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Return the losses (N,) of the tokens, and the sum of ln^2 Z."""
    rows = _products_type(hidden)
    found = torch.empty(targets.shape, dtype=_score_type(rows), device=rows.device)
    squares = torch.zeros((), dtype=found.dtype, device=rows.device)
    for part, logits in _chunks(rows, weight.to(rows.dtype), vocab_size):
        found[part], _, log_z = _losses_(logits, targets[part])
        squares += log_z.square().sum()
    return found, squares


class _Losses(torch.autograd.Function):
    """Computes loss and gradients in one pass: the gradient of a row's logits is softmax(logits) - onehot(target).

    Rows are divided by the sums of their exponentials in the small matrices, `hidden` and its gradient, not in the
    large matrix of logits (docs/benchmarks.md).
    """

    @staticmethod
    def forward(  # Any: torch has no type for it
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        vocab_size: int,
        divisor: float | Tensor,
        z_weight: float,
    ) -> tuple[Tensor, Tensor]:
        rows = _products_type(hidden)  # (N, D)
        matrix = weight.to(rows.dtype)  # (W, D)
        nats = torch.zeros((), dtype=_score_type(rows), device=rows.device)
        extra = torch.zeros_like(nats)
        hidden_gradient = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        weight_gradient = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        for part, logits in _chunks(rows, matrix, vocab_size):
            found, sums, log_z = _losses_(logits, targets[part])
            nats += found.sum()
            if z_weight:
                extra += z_weight * log_z.square().sum()
                logits.mul_((1 + 2 * z_weight * log_z)[:, None])
            unscaled = _unscaled_gradient_(logits, sums, targets[part])
            if rows.dtype == torch.float16:
                sums = _fitted_(unscaled, sums)
            gradient = unscaled.to(rows.dtype)  # (R, W)
            each = (1 / divisor / sums).masked_fill_(targets[part] < 0, 0.0)[:, None].to(rows.dtype)
            if hidden_gradient is not None:
                torch.mm(gradient, matrix, out=hidden_gradient[part])
                hidden_gradient[part] *= each
            if weight_gradient is not None:
                _add_product_(weight_gradient, gradient.t(), rows[part] * each, is_first=part.start == 0)
        ctx.gradients = None if hidden_gradient is None else hidden_gradient.to(hidden.dtype), weight_gradient
        total, alone = (nats + extra) / divisor, nats / divisor
        ctx.mark_non_differentiable(alone)
        return total, alone

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of the loss were scaled in place: backward works once")
        is_one = _is_one(scale)
        gradients = [g if g is None or is_one else g.mul_(scale) for g in ctx.gradients]
        ctx.gradients = None
        return *gradients, None, None, None, None


def _is_one(scale: Tensor) -> bool:
    """Whether `scale` is 1 on a CPU. On other devices, reading the value would wait for the device."""
    return scale.device.type == "cpu" and scale.item() == 1


def _products_type(rows: Tensor) -> Tensor:
    device = rows.device.type
    if rows.is_meta or not torch.is_autocast_enabled(device):  # the meta device has no autocast
        return rows
    return rows.to(torch.get_autocast_dtype(device))


def _score_type(rows: Tensor) -> torch.dtype:
    return torch.promote_types(rows.dtype, torch.float32)


def _chunks(rows: Tensor, matrix: Tensor, vocab_size: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield the logits (R, W) of one chunk of rows at a time, in memory that the next chunk overwrites."""
    N, W = len(rows), len(matrix)
    size = chunk_rows(N, W, on_gpu=rows.device.type != "cpu")
    products = torch.empty(size, W, dtype=rows.dtype, device=rows.device)
    # One buffer for all chunks, because touching fresh memory costs about as much as the softmax.
    scores = products if products.dtype == _score_type(rows) else products.to(_score_type(rows))
    for start in range(0, N, size):
        part = slice(start, min(start + size, N))
        logits = scores[: part.stop - start]
        torch.mm(rows[part], matrix.t(), out=products[: len(logits)])
        if scores is not products:
            logits.copy_(products[: len(logits)])
        if vocab_size < W:
            logits[:, vocab_size:] = -torch.inf
        yield part, logits


def _losses_(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return losses, sums and ln Z, each (R,). `logits` (R, W) become exp(logit - largest logit), with those sums.

    The loss and ln Z are 0 for rows without a target.
    """
    is_none = targets < 0
    scores = logits.gather(1, targets.clamp_min(0)[:, None]).squeeze(1)
    greatest = logits.amax(1)
    sums = logits.sub_(greatest[:, None]).exp_().sum(1)
    log_z = (sums.log() + greatest).masked_fill_(is_none, 0.0)
    return (log_z - scores).masked_fill_(is_none, 0.0), sums, log_z


def _unscaled_gradient_(exponentials: Tensor, sums: Tensor, targets: Tensor) -> Tensor:
    """Return the gradient of the logits (R, W), times the sums of their rows."""
    return exponentials.scatter_add_(1, targets.clamp_min(0)[:, None], -sums[:, None])


def _fitted_(gradient: Tensor, sums: Tensor) -> Tensor:
    """Scale the rows of `gradient`, whose entries are within `sums`, so that fp16 neither overflows nor underflows.

    Return the new divisors of the rows.
    """
    gradient.mul_((FP16_ROW / sums)[:, None])
    return torch.full_like(sums, FP16_ROW)


def _add_product_(total: Tensor, left: Tensor, right: Tensor, *, is_first: bool) -> None:
    if total.dtype != left.dtype:
        product = torch.mm(left, right)
        if is_first:
            total.copy_(product)
        else:
            total.add_(product)
    elif is_first:
        torch.mm(left, right, out=total)
    else:
        total.addmm_(left, right)
