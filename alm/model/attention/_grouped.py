"""Causal attention whose key and value heads each serve a group of query heads.

B batch, T tokens, S tokens so far (T of them new), D model width, H query heads, K key/value heads, E head width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alm.model.attention._blocked import MaskSpec, attend_blocked
from alm.model.attention.grouped import MANY_HEADS
from alm.model.linear import Linear
from alm.model.norm import RMSNorm

if TYPE_CHECKING:
    from alm.model.config import ModelConfig
    from alm.model.context import ForwardContext
    from alm.model.kv_cache import LayerCache

# FlexAttention has no backward pass for shared keys with fewer tokens than a block, and none at all for narrower heads
# (PyTorch 2.11, observed on an H100).
FLEX_TOKENS, FLEX_WIDTH = 128, 16
Way = Literal["blocks", "flex", "causal", "mask"]


class GroupedAttention(nn.Module):
    """Computes softmax(q k^T / sqrt(E)) v in each head, over the token itself and those before it."""

    def __init__(self, config: ModelConfig, layer: int, *, window: int | None = None) -> None:
        super().__init__()
        self.window = window
        D, E = config.d_model, config.head_width
        self.head_width = E
        self.q_proj = Linear(D, config.n_heads * E)
        self.k_proj = Linear(D, config.n_kv_heads * E)
        self.v_proj = Linear(D, config.n_kv_heads * E)
        self.o_proj = Linear(config.n_heads * E, D)
        self.q_norm = RMSNorm(E, eps=config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(E, eps=config.norm_eps) if config.qk_norm else None
        self.gives_values = config.value_residual and layer == 0
        self.value_scale = nn.Parameter(torch.zeros(1)) if config.value_residual and layer > 0 else None

    def forward(self, x: Tensor, context: ForwardContext, cache: LayerCache | None = None) -> Tensor:
        q = self._heads(self.q_proj(x))  # (B, T, H, E)
        k = self._heads(self.k_proj(x))  # (B, T, K, E)
        v = self._heads(self.v_proj(x)).transpose(1, 2)  # (B, K, T, E)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = context.placement.rotate(q).transpose(1, 2), context.placement.rotate(k).transpose(1, 2)
        v = self._with_first(v, context)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, K, S, E)
        rules = MaskSpec(context.placement.slopes, self.window, context.documents)
        mixed = attend(q, k, v, rules, masks=context.masks).transpose(1, 2)  # (B, T, H, E)
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
    rules: MaskSpec = MaskSpec(),  # noqa: B008 # frozen
    *,
    masks: dict[int | None, Any] | None = None,  # Any: FlexAttention's
) -> Tensor:
    """Attend: `q` (B, H, T, E), the last T of the S tokens in `k` and `v` (B, K, S, E) -> (B, H, T, E).

    It uses the fastest implementation for the device and the rules. `masks` caches what the layers of one forward pass
    share.
    """
    T, S = q.shape[2], k.shape[2]
    # The last token sees all keys of its window, so no mask is needed. A window over all tokens hides nothing. In both
    # cases, a plain kernel can do it.
    if rules.window is not None and T == 1:
        k, v, rules = k[:, :, -rules.window :], v[:, :, -rules.window :], rules.of_last()
    elif rules.window is not None and rules.window >= S:
        rules = replace(rules, window=None)
    taken = way(q, k, rules)
    if taken == "blocks":
        return attend_blocked(q, k, v, rules)
    if taken == "flex":
        from alm.model.attention._flex import attend_flex

        return attend_flex(q, k, v, rules, {} if masks is None else masks)
    is_causal = taken == "causal"
    mask = None if is_causal else _mask(q, k.shape[2], rules)
    is_shared = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=is_shared)


def way(q: Tensor, k: Tensor, rules: MaskSpec) -> Way:
    """Choose the implementation: in blocks, FlexAttention, or PyTorch's kernel, causal or with a mask."""
    T, S = q.shape[2], k.shape[2]
    pays = q.shape[1] >= MANY_HEADS * k.shape[1] or not rules.is_plain or T != S
    if T > 1 and pays and _is_blocked(q):
        return "blocks"
    if T == S >= FLEX_TOKENS and q.shape[3] >= FLEX_WIDTH and not rules.is_plain and _has_flex(q):
        return "flex"
    return "causal" if rules.is_plain and T == S > 1 else "mask"


def _has_flex(q: Tensor) -> bool:
    """Whether to use FlexAttention: not in generation, where it would compile again for each prompt length."""
    return q.device.type == "cuda" and not torch.is_inference_mode_enabled()


def _is_blocked(q: Tensor) -> bool:
    """Whether blocks can be faster: not in bf16, where PyTorch's kernel uses matrix units, nor in a compiled model."""
    is_exact = q.dtype in (torch.float32, torch.float64)
    return q.device.type == "cpu" and is_exact and not torch.compiler.is_compiling()


def _mask(q: Tensor, count: int, rules: MaskSpec) -> Tensor | None:
    """Return a bias for the scores, or the visible ones of `count` = S keys: (B or 1, H or 1, T, S)."""
    T, device = q.shape[2], q.device
    if rules.is_plain and T == 1:
        return None
    if rules.is_plain and q.device.type == "cuda" and not torch.compiler.is_compiling():
        # Imported here, because it imports the compiler, which takes seconds that a CPU run does not need to spend.
        from torch.nn.attention.bias import causal_lower_right

        # This makes no table. `is_causal` would align the first tokens, not the last.
        return causal_lower_right(T, count)
    places = torch.arange(count, device=device)
    distances = places[count - T :, None] - places  # (T, S)
    seen = (distances >= 0)[None, None]
    if rules.window is not None:
        seen = seen & (distances < rules.window)
    if rules.documents is not None:
        seen = seen & (rules.documents[:, None, -T:, None] == rules.documents[:, None, None])
    if rules.slopes is None:
        return seen
    falls = -rules.slopes[:, None, None] * distances  # (H, T, S)
    return falls.to(q.dtype).masked_fill(~seen, -torch.inf)
