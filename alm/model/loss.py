"""Cross entropy straight from hidden states: the logits of all tokens never exist at once.

B batch, T tokens, N = B x T rows, R rows of one chunk, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# A chunk has this many rows, or more where the vocabulary is so small that its logits still fit in so many elements.
CHUNK_ROWS = 512
CHUNK_ELEMENTS = 2**22


def cross_entropy_sum(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Sum over all tokens of -ln p(target), in nats, as an fp32 scalar (fp64 for fp64 input).

    `hidden` (B, T, D), `weight` (V, D), `targets` (B, T) int64; a token whose target is negative counts nothing. Under
    autocast the matrix products are in its type and the softmax is in fp32. Gradients are made here, chunk by chunk, if
    any will be asked for; `backward`, which can be called once, only scales them.
    """
    rows, answers = hidden.flatten(0, -2), targets.flatten()
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return cast(Tensor, _CrossEntropySum.apply(rows, weight, answers))  # type: ignore[no-untyped-call]
    return token_losses(hidden, weight, targets).sum()


@torch.no_grad()
def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """-ln p(target) of every token, (B, T), in nats, as fp32 (fp64 for fp64 input); no gradient.

    It is 0 where the target is negative.
    """
    rows, answers = _products_type(hidden.flatten(0, -2)), targets.flatten()
    losses = torch.empty(answers.shape, dtype=_score_type(rows), device=rows.device)
    for part, logits in _chunks(rows, weight.to(rows.dtype)):
        losses[part] = _losses_(logits, answers[part])[0]
    return losses.view(targets.shape)


class _CrossEntropySum(torch.autograd.Function):
    """The gradient of a row's logits is softmax(logits) - onehot(target), so both gradients are made in one pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:  # Any: torch has no type for it
        rows = _products_type(hidden)  # (N, D)
        matrix = weight.to(rows.dtype)  # (V, D)
        total = torch.zeros((), dtype=_score_type(rows), device=rows.device)
        hidden_gradient = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        weight_gradient = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for part, logits in _chunks(rows, matrix):
            losses, sums = _losses_(logits, targets[part])
            total += losses.sum()
            gradient = _logit_gradient_(logits, sums, targets[part]).to(rows.dtype)  # (R, V)
            if hidden_gradient is not None:
                torch.mm(gradient, matrix, out=hidden_gradient[part])
            if weight_gradient is not None:
                _add_product_(weight_gradient, gradient.t(), rows[part])
        ctx.gradients = None if hidden_gradient is None else hidden_gradient.to(hidden.dtype), weight_gradient
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of cross_entropy_sum were scaled in place: backward works once")
        hidden_gradient, weight_gradient = (None if g is None else g.mul_(scale) for g in ctx.gradients)
        ctx.gradients = None
        return hidden_gradient, weight_gradient, None


def _products_type(rows: Tensor) -> Tensor:
    device = rows.device.type
    if rows.is_meta or not torch.is_autocast_enabled(device):  # the meta device knows no autocast
        return rows
    return rows.to(torch.get_autocast_dtype(device))


def _score_type(rows: Tensor) -> torch.dtype:
    return torch.promote_types(rows.dtype, torch.float32)


def _chunks(rows: Tensor, matrix: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Which rows, and their logits (R, V) in a buffer that the next chunk overwrites."""
    N, V = len(rows), len(matrix)
    size = min(N, max(CHUNK_ROWS, CHUNK_ELEMENTS // V))
    products = torch.empty(size, V, dtype=rows.dtype, device=rows.device)
    # One buffer for all chunks: touching fresh memory costs about as much as the softmax.
    scores = products if products.dtype == _score_type(rows) else products.to(_score_type(rows))
    for start in range(0, N, size):
        part = slice(start, min(start + size, N))
        logits = scores[: part.stop - start]
        torch.mm(rows[part], matrix.t(), out=products[: len(logits)])
        if scores is not products:
            logits.copy_(products[: len(logits)])
        yield part, logits


def _losses_(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (R,), and sums (R,) of what is left in `logits` (R, V): exp(logit - greatest logit)."""
    scores = logits.gather(1, targets.clamp_min(0)[:, None]).squeeze(1)
    greatest = logits.amax(1)
    sums = logits.sub_(greatest[:, None]).exp_().sum(1)
    return (sums.log() + greatest - scores).masked_fill_(targets < 0, 0.0), sums


def _logit_gradient_(exponentials: Tensor, sums: Tensor, targets: Tensor) -> Tensor:
    """A row without a target is divided by infinity, and so has no gradient."""
    is_none = targets < 0
    probabilities = exponentials.div_(sums.masked_fill(is_none, torch.inf)[:, None])
    ones = torch.full_like(sums, -1.0).masked_fill_(is_none, 0.0)
    return probabilities.scatter_add_(1, targets.clamp_min(0)[:, None], ones[:, None])


def _add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(torch.mm(left, right))
