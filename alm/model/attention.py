"""Causal attention whose key and value heads each serve a group of query heads, in four implementations.

Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245), from multi-query to multi-head. `attend` chooses the
fastest implementation for the device and the mask.

B batch, T new tokens, S tokens so far (T of them new), D model width, H query heads, K key/value heads, G = H / K,
E head width, N queries of a block, M keys that they may see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from alm.model.config import MANY_HEADS, ModelConfig
from alm.model.context import ForwardContext
from alm.model.kv_cache import LayerCache
from alm.model.layers import Linear, RMSNorm

if TYPE_CHECKING:
    # Importing it imports the compiler, which takes seconds that a CPU run does not need to spend.
    from torch.nn.attention.flex_attention import BlockMask

# FlexAttention has no backward pass for shared keys with fewer tokens than a block, and none at all for narrower heads
# (PyTorch 2.11, observed on an H100).
FLEX_TOKENS, FLEX_WIDTH = 128, 16
# Queries of a block: few enough that their scores stay in a CPU's cache.
BLOCK = 64
Kernel = Literal["blocks", "flex", "causal", "mask"]


@dataclass(frozen=True)
class MaskSpec:
    """Which tokens see which: a token sees itself and the tokens before it, fewer with `window` or `documents`.

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
        """Return the mask of the last token alone, with keys reduced to its window."""
        assert self.window is not None
        documents = None if self.documents is None else self.documents[:, -self.window :]
        return MaskSpec(self.slopes, None, documents)


class GroupedAttention(nn.Module):
    """Computes softmax(q k^T / sqrt(E)) v in each head, over the token itself and those before it."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.window = config.attention.window_of(layer)
        self.rotates = config.positions.rotates(layer)
        D, E, bias = config.d_model, config.head_width, config.attention.bias
        self.head_width = E
        self.q_proj = Linear(D, config.n_heads * E, bias=bias != "none")
        self.k_proj = Linear(D, config.n_kv_heads * E, bias=bias != "none")
        self.v_proj = Linear(D, config.n_kv_heads * E, bias=bias != "none")
        self.o_proj = Linear(config.n_heads * E, D, bias=bias == "qkvo")
        self.q_norm = RMSNorm(E, eps=config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(E, eps=config.norm_eps) if config.qk_norm else None
        self.gives_values = config.value_residual and layer == 0
        self.value_scale = nn.Parameter(torch.zeros(1)) if config.value_residual and layer > 0 else None

    def forward(self, x: Tensor, context: ForwardContext, cache: LayerCache | None = None) -> Tensor:  # (B, T, D)
        q = self._heads(self.q_proj(x))  # (B, T, H, E)
        k = self._heads(self.k_proj(x))  # (B, T, K, E)
        v = self._heads(self.v_proj(x)).transpose(1, 2)  # (B, K, T, E)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rotates:
            q, k = context.placement.rotate(q), context.placement.rotate(k)
        q, k = q.transpose(1, 2), k.transpose(1, 2)
        v = self._with_first(v, context)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, K, S, E)
        spec = MaskSpec(context.placement.slopes, self.window, context.documents)
        mixed = attend(q, k, v, spec, masks=context.masks).transpose(1, 2)  # (B, T, H, E)
        return cast(Tensor, self.o_proj(mixed.flatten(2)))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.head_width)

    def _with_first(self, v: Tensor, context: ForwardContext) -> Tensor:
        """Mix the values with those of the first layer (Zhou et al. 2024, arXiv:2410.17897, equation 8)."""
        if self.gives_values:
            context.first_values = v
        if self.value_scale is None:
            return v
        assert context.first_values is not None
        return v + self.value_scale.to(v.dtype) * (context.first_values - v)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spec: MaskSpec = MaskSpec(),  # frozen
    *,
    masks: dict[int | None, Any] | None = None,  # Any: FlexAttention's
) -> Tensor:
    """Attend: `q` (B, H, T, E), the last T of the S tokens in `k` and `v` (B, K, S, E) -> (B, H, T, E).

    It uses the fastest implementation for the device and the mask. `masks` caches what the layers of one forward pass
    share.
    """
    T, S = q.shape[2], k.shape[2]
    # The last token sees all keys of its window, so no mask is needed. A window over all tokens hides nothing. In both
    # cases, a plain kernel can do it.
    if spec.window is not None and T == 1:
        k, v, spec = k[:, :, -spec.window :], v[:, :, -spec.window :], spec.of_last()
    elif spec.window is not None and spec.window >= S:
        spec = replace(spec, window=None)
    kernel = kernel_for(q, k, spec)
    if kernel == "blocks":
        return attend_blocked(q, k, v, spec)
    if kernel == "flex":
        return attend_flex(q, k, v, spec, {} if masks is None else masks)
    is_causal = kernel == "causal"
    mask = None if is_causal else _dense_mask(q, k.shape[2], spec)
    is_shared = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=is_shared)


def kernel_for(q: Tensor, k: Tensor, spec: MaskSpec) -> Kernel:
    """Choose the implementation: in blocks, FlexAttention, or PyTorch's kernel, causal or with a mask."""
    T, S = q.shape[2], k.shape[2]
    pays = q.shape[1] >= MANY_HEADS * k.shape[1] or not spec.is_plain or T != S
    if T > 1 and pays and _is_blocked(q):
        return "blocks"
    if T == S >= FLEX_TOKENS and q.shape[3] >= FLEX_WIDTH and not spec.is_plain and _has_flex(q):
        return "flex"
    return "causal" if spec.is_plain and T == S > 1 else "mask"


def _has_flex(q: Tensor) -> bool:
    """Whether to use FlexAttention: not in generation, where it would compile again for each prompt length."""
    return q.device.type == "cuda" and not torch.is_inference_mode_enabled()


def _is_blocked(q: Tensor) -> bool:
    """Whether blocks can be faster: not in bf16, where PyTorch's kernel uses matrix units, nor in a compiled model."""
    is_exact = q.dtype in (torch.float32, torch.float64)
    return q.device.type == "cpu" and is_exact and not torch.compiler.is_compiling()


def _dense_mask(q: Tensor, count: int, spec: MaskSpec) -> Tensor | None:
    """Return a bias for the scores, or the visible ones of `count` = S keys: (B or 1, H or 1, T, S)."""
    T, device = q.shape[2], q.device
    if spec.is_plain and T == 1:
        return None
    if spec.is_plain and q.device.type == "cuda" and not torch.compiler.is_compiling():
        # Imported here, because it imports the compiler, which takes seconds that a CPU run does not need to spend.
        from torch.nn.attention.bias import causal_lower_right

        # This makes no table. `is_causal` would align the first tokens, not the last.
        return causal_lower_right(T, count)
    places = torch.arange(count, device=device)
    distances = places[count - T :, None] - places  # (T, S)
    seen = (distances >= 0)[None, None]
    if spec.window is not None:
        seen = seen & (distances < spec.window)
    if spec.documents is not None:
        seen = seen & (spec.documents[:, None, -T:, None] == spec.documents[:, None, None])
    if spec.slopes is None:
        return seen
    falls = -spec.slopes[:, None, None] * distances  # (H, T, S)
    return falls.to(q.dtype).masked_fill(~seen, -torch.inf)


# ---- in blocks, for CPUs -----------------------------------------------------------------------------------
# Only the scores of one block of queries exist at a time, and keys that none of them sees are never touched. Query
# heads that share a key head are rows of one matrix product, which PyTorch's own kernel for CPUs does not do
# (docs/benchmarks.md, ADR 0012).


def attend_blocked(q: Tensor, k: Tensor, v: Tensor, spec: MaskSpec) -> Tensor:
    """Attend: `q` (B, H, T, E), the last T of the S tokens in `k` and `v` (B, K, S, E) -> (B, H, T, E)."""
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return cast(Tensor, _Blocked.apply(q, k, v, spec))  # type: ignore[no-untyped-call]
    return _mixed(_grouped(q, k.shape[1]), _joined(k), _joined(v), spec).reshape(q.shape)


class _Blocked(torch.autograd.Function):
    """Saves queries, keys and values; the backward pass recomputes the scores (Dao et al. 2022, arXiv:2205.14135)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, spec: MaskSpec) -> Tensor:  # Any: torch has no type for it
        grouped, keys, values = _grouped(q, k.shape[1]), _joined(k), _joined(v)
        ctx.save_for_backward(grouped, keys, values)
        ctx.spec, ctx.shapes = spec, (q.shape, k.shape)
        return _mixed(grouped, keys, values, spec).view(q.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Compute dV = P^T dO, dS = P (dP - sum(P dP)) with dP = dO V^T, dQ = dS K, dK = dS^T Q, P the softmax."""
        q, k, v = ctx.saved_tensors
        q_shape, k_shape = ctx.shapes
        d_out = gradient.reshape(q.shape)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for block in _blocks(q, k, ctx.spec):
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


def _mixed(q: Tensor, k: Tensor, v: Tensor, spec: MaskSpec) -> Tensor:
    """Return the mixed values (B K, G, T, E)."""
    out = torch.empty_like(q)
    for block in _blocks(q, k, spec):
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
    spec: MaskSpec

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
        """Apply the mask to `scores` (B K, G, N, M): subtract the slopes, and set hidden keys to -inf."""
        spec, (BK, _, N, M) = self.spec, scores.shape
        places = torch.arange(self.keys.start, self.keys.stop, device=scores.device)
        distances = torch.arange(self.first, self.first + N, device=scores.device)[:, None] - places  # (N, M)
        if spec.slopes is not None:
            falls = spec.slopes.to(scores.dtype)[:, None, None] * distances  # (H, N, M)
            scores.view(-1, len(spec.slopes), N, M).sub_(falls)
        if spec.window is None and spec.documents is None:
            # Only keys after the first query can be hidden from any query of the block.
            scores[..., M - N :].masked_fill_(distances[:, M - N :] < 0, -torch.inf)
            return
        hidden = distances < 0
        if spec.window is not None:
            hidden = hidden | (distances >= spec.window)
        if spec.documents is not None:
            own = spec.documents[:, self.first : self.first + N, None] != spec.documents[:, None, self.keys]
            hidden = (hidden | own).repeat_interleave(BK // len(own), 0)[:, None]  # (B K, 1, N, M)
        scores.masked_fill_(hidden, -torch.inf)


def _blocks(q: Tensor, k: Tensor, spec: MaskSpec) -> Iterator[_Block]:
    new, count = q.shape[2], k.shape[1]
    for start in range(0, new, BLOCK):
        stop = min(start + BLOCK, new)
        first, end = count - new + start, count - new + stop
        begin = 0 if spec.window is None else max(0, first - spec.window + 1)
        yield _Block(slice(start, stop), slice(begin, end), first, spec)


# ---- FlexAttention, for GPUs -------------------------------------------------------------------------------
# Blocks that no token sees are skipped, and no table of tokens by tokens is made (Dong et al. 2024, arXiv:2412.05496).


def attend_flex(q: Tensor, k: Tensor, v: Tensor, spec: MaskSpec, masks: dict[int | None, BlockMask]) -> Tensor:
    """Attend: `q` (B, H, T, E), `k` and `v` (B, K, T, E) -> (B, H, T, E). `masks` caches block masks by window."""
    if spec.window not in masks:
        masks[spec.window] = _block_mask(spec, q.shape[2], q.device)
    score = None if spec.slopes is None else _falling(spec.slopes)
    grouped = q.shape[1] != k.shape[1]
    mixed: Tensor = _compiled()(q, k, v, score_mod=score, block_mask=masks[spec.window], enable_gqa=grouped)
    return mixed


@cache
def _compiled() -> Callable[..., Any]:  # Any: torch's own type
    """Compile FlexAttention, which would otherwise make the table of all scores."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def _block_mask(spec: MaskSpec, tokens: int, device: torch.device) -> BlockMask:
    if spec.documents is None:
        return _window_mask(spec.window, tokens, device)
    return _made_mask(spec, len(spec.documents), tokens, device)


@lru_cache(maxsize=32)
def _window_mask(window: int | None, tokens: int, device: torch.device) -> BlockMask:
    """Return the mask of a window, which is the same in every forward pass."""
    return _made_mask(MaskSpec(window=window), None, tokens, device)


def _made_mask(spec: MaskSpec, batch: int | None, tokens: int, device: torch.device) -> BlockMask:
    from torch.nn.attention.flex_attention import create_block_mask

    # Without compilation, this would once make the table of tokens by tokens. On a CPU, compiling is not worth it.
    is_compiled = device.type == "cuda" and not torch.compiler.is_compiling()
    make = _compiled_maker() if is_compiled else create_block_mask
    return make(_visible(spec), batch, None, tokens, tokens, device=str(device))


@cache
def _compiled_maker() -> Callable[..., Any]:  # Any: torch's own type
    from torch.nn.attention.flex_attention import create_block_mask

    return torch.compile(create_block_mask)


def _visible(spec: MaskSpec) -> Callable[..., Tensor]:
    """Return the mask as FlexAttention takes it: a function of the positions of a query and a key."""
    window, documents = spec.window, spec.documents

    def sees(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = query >= key
        if window is not None:
            seen = seen & (query - key < window)
        if documents is not None:
            seen = seen & (documents[b, query] == documents[b, key])
        return seen

    return sees


def _falling(slopes: Tensor) -> Callable[..., Tensor]:
    def falls(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score - slopes[h] * (query - key)

    return falls
