"""Attention block by block in plain PyTorch, for CPUs (ADR 0012).

Only the scores of one block of queries exist at a time, and keys that none of them sees are never touched. Query heads
that share a key head are rows of one matrix product, which PyTorch's own kernel for CPUs does not do
(docs/benchmarks.md).

B batch, T new tokens, S tokens so far (T of them new), H query heads, K key/value heads, G = H / K, E head width,
N queries of a block, M keys that they may see.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Queries of a block: few enough that their scores stay in a CPU's cache.
BLOCK = 64


@dataclass(frozen=True)
class MaskSpec:
    """MaskSpec of visibility: a token sees itself and the tokens before it, fewer with `window` or `documents`.

    `slopes` (H,): the fall of scores per token of distance. `documents` (B, S): tokens see only their own document.
    """

    slopes: Tensor | None = None
    window: int | None = None
    documents: Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Whether a token sees all tokens before it, without a penalty for distance."""
        return self.slopes is None and self.window is None and self.documents is None

    def of_last(self) -> MaskSpec:
        """Return the rules for the last token alone, with keys reduced to its window."""
        assert self.window is not None
        documents = None if self.documents is None else self.documents[:, -self.window :]
        return MaskSpec(self.slopes, None, documents)


def attend_blocked(q: Tensor, k: Tensor, v: Tensor, rules: MaskSpec) -> Tensor:
    """Attend: `q` (B, H, T, E), the last T of the S tokens in `k` and `v` (B, K, S, E) -> (B, H, T, E)."""
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return cast(Tensor, _Blocked.apply(q, k, v, rules))  # type: ignore[no-untyped-call]
    return _mixed(_grouped(q, k.shape[1]), _joined(k), _joined(v), rules).reshape(q.shape)


class _Blocked(torch.autograd.Function):
    """Saves queries, keys and values; the backward pass recomputes the scores (Dao et al. 2022, arXiv:2205.14135)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, rules: MaskSpec) -> Tensor:  # Any: torch has no type for it
        grouped, keys, values = _grouped(q, k.shape[1]), _joined(k), _joined(v)
        ctx.save_for_backward(grouped, keys, values)
        ctx.rules, ctx.shapes = rules, (q.shape, k.shape)
        return _mixed(grouped, keys, values, rules).view(q.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Compute dV = P^T dO, dS = P (dP - sum(P dP)) with dP = dO V^T, dQ = dS K, dK = dS^T Q, P the softmax."""
        q, k, v = ctx.saved_tensors
        q_shape, k_shape = ctx.shapes
        d_out = gradient.reshape(q.shape)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for block in _blocks(q, k, ctx.rules):
            queries, p = block.queries(q), block.probabilities(q, k)
            d = block.queries(d_out)
            keys, values = k[:, block.keys], v[:, block.keys]
            dv[:, block.keys].baddbmm_(p.transpose(1, 2), d)
            dp = torch.bmm(d, values.transpose(1, 2))
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
            dq[:, :, block.rows] = torch.bmm(ds, keys).view(*q.shape[:2], -1, q.shape[3])
            dk[:, block.keys].baddbmm_(ds.transpose(1, 2), queries)
        # The saved queries already include the scale, and so does dK. dQ needs it here.
        return dq.mul_(1 / math.sqrt(q.shape[3])).view(q_shape), dk.view(k_shape), dv.view(k_shape), None


def _mixed(q: Tensor, k: Tensor, v: Tensor, rules: MaskSpec) -> Tensor:
    """Return the mixed values (B K, G, T, E)."""
    out = torch.empty_like(q)
    for block in _blocks(q, k, rules):
        mixed = torch.bmm(block.probabilities(q, k), v[:, block.keys])  # (B K, G N, E)
        out[:, :, block.rows] = mixed.view(*q.shape[:2], -1, q.shape[3])
    return out


def _grouped(q: Tensor, kv_heads: int) -> Tensor:
    """Return the queries as (B K, G, T, E), scaled by 1 / sqrt(E)."""
    B, H, T, E = q.shape
    return (q * (1 / math.sqrt(E))).reshape(B * kv_heads, H // kv_heads, T, E)


def _joined(x: Tensor) -> Tensor:
    """Return keys or values as (B K, S, E)."""
    return x.reshape(-1, *x.shape[2:])


@dataclass(frozen=True)
class _Block:
    """A block of queries, and the keys that they may see."""

    rows: slice  # among the T new tokens
    keys: slice  # among all S
    first: int  # position of the first query among all S
    rules: MaskSpec

    def queries(self, x: Tensor) -> Tensor:
        """Return the block's rows: (B K, G, T, E) -> (B K, G N, E)."""
        return x[:, :, self.rows].reshape(len(x), -1, x.shape[3])

    def probabilities(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the softmax of the scores (B K, G N, M)."""
        scores = torch.bmm(self.queries(q), k[:, self.keys].transpose(1, 2))
        N, M = self.rows.stop - self.rows.start, self.keys.stop - self.keys.start
        self._restrict_(scores.view(*q.shape[:2], N, M))
        return torch.softmax(scores, -1)

    def _restrict_(self, scores: Tensor) -> None:
        """Apply the rules to `scores` (B K, G, N, M): subtract the slopes, and set hidden keys to -inf."""
        rules, (BK, _, N, M) = self.rules, scores.shape
        places = torch.arange(self.keys.start, self.keys.stop, device=scores.device)
        distances = torch.arange(self.first, self.first + N, device=scores.device)[:, None] - places  # (N, M)
        if rules.slopes is not None:
            falls = rules.slopes.to(scores.dtype)[:, None, None] * distances  # (H, N, M)
            scores.view(-1, len(rules.slopes), N, M).sub_(falls)
        if rules.window is None and rules.documents is None:
            # Only keys after the first query can be hidden from any query of the block.
            scores[..., M - N :].masked_fill_(distances[:, M - N :] < 0, -torch.inf)
            return
        hidden = distances < 0
        if rules.window is not None:
            hidden = hidden | (distances >= rules.window)
        if rules.documents is not None:
            own = rules.documents[:, self.first : self.first + N, None] != rules.documents[:, None, self.keys]
            hidden = (hidden | own).repeat_interleave(BK // len(own), 0)[:, None]  # (B K, 1, N, M)
        scores.masked_fill_(hidden, -torch.inf)


def _blocks(q: Tensor, k: Tensor, rules: MaskSpec) -> Iterator[_Block]:
    new, count = q.shape[2], k.shape[1]
    for start in range(0, new, BLOCK):
        stop = min(start + BLOCK, new)
        first, end = count - new + start, count - new + stop
        begin = 0 if rules.window is None else max(0, first - rules.window + 1)
        yield _Block(slice(start, stop), slice(begin, end), first, rules)
