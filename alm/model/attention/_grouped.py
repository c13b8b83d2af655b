"""Causal attention whose key and value heads each serve a group of query heads.

B batch, T tokens, S tokens seen so far (T of them new), D model width, H query heads, K key/value heads, E head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alm.model.linear import Linear
from alm.model.norm import RMSNorm

if TYPE_CHECKING:
    from alm.model.config import ModelConfig
    from alm.model.kv_cache import LayerCache
    from alm.model.positions import Placement


class GroupedAttention(nn.Module):
    """softmax(q k^T / sqrt(E)) v in each head, over the token itself and those before it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D, E = config.d_model, config.head_width
        self.head_width = E
        self.q_proj = Linear(D, config.n_heads * E)
        self.k_proj = Linear(D, config.n_kv_heads * E)
        self.v_proj = Linear(D, config.n_kv_heads * E)
        self.o_proj = Linear(config.n_heads * E, D)
        self.q_norm = RMSNorm(E, eps=config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(E, eps=config.norm_eps) if config.qk_norm else None

    def forward(self, x: Tensor, placement: Placement, cache: LayerCache | None = None) -> Tensor:
        q = self._heads(self.q_proj(x))  # (B, T, H, E)
        k = self._heads(self.k_proj(x))  # (B, T, K, E)
        v = self._heads(self.v_proj(x))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = placement.rotate(q), placement.rotate(k)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, T, E)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, K, S, E)
        mixed = attend(q, k, v).transpose(1, 2)  # (B, T, H, E)
        return cast(Tensor, self.o_proj(mixed.flatten(2)))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.head_width)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`q` (B, H, T, E), the last T of the S tokens in `k` and `v` (B, K, S, E) -> (B, H, T, E)."""
    H, T, K, S = q.shape[1], q.shape[2], k.shape[1], k.shape[2]
    grouped = H != K
    if T == S:
        return F.scaled_dot_product_attention(q, k, v, is_causal=T > 1, enable_gqa=grouped)
    # `is_causal` would align the corner of the first token, not of the last; one new token sees everything.
    seen = None if T == 1 else torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=grouped)
