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

    def __init__(self, config: ModelConfig, *, window: int | None = None) -> None:
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
        mixed = attend(q, k, v, slopes=placement.slopes, window=self.window).transpose(1, 2)  # (B, T, H, E)
        return cast(Tensor, self.o_proj(mixed.flatten(2)))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.head_width)


def attend(q: Tensor, k: Tensor, v: Tensor, *, slopes: Tensor | None = None, window: int | None = None) -> Tensor:
    """`q` (B, H, T, E), the last T of the S tokens in `k` and `v` (B, K, S, E) -> (B, H, T, E).

    A token sees itself and those before it, with `window` only the last so many. Scores lose `slopes` (H,) for every
    token of distance.
    """
    H, T, K, S = q.shape[1], q.shape[2], k.shape[1], k.shape[2]
    grouped = H != K
    if window is not None and T == 1 and window < S:
        k, v, S = k[:, :, -window:], v[:, :, -window:], window
    is_narrow = window is not None and window < S
    if T == S and slopes is None and not is_narrow:
        return F.scaled_dot_product_attention(q, k, v, is_causal=T > 1, enable_gqa=grouped)
    # `is_causal` would align the corner of the first token, not of the last; one new token sees everything.
    mask = None if T == 1 else _visible(T, S, window if is_narrow else None, q.device)
    if slopes is not None:
        mask = _fallen(T, S, slopes, mask).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)


def _visible(new: int, count: int, window: int | None, device: torch.device) -> Tensor:
    """(T, S): which of S = `count` tokens each of the last T = `new` sees."""
    seen = torch.ones(new, count, dtype=torch.bool, device=device).tril(count - new)
    return seen if window is None else seen.triu(count - new - window + 1)


def _fallen(new: int, count: int, slopes: Tensor, seen: Tensor | None) -> Tensor:
    """(H, T, S): what is added to the scores, -slope x distance, or -inf where a token is not seen."""
    places = torch.arange(count, device=slopes.device)
    added = -slopes[:, None, None] * (places[count - new :, None] - places)
    return added if seen is None else added.masked_fill(~seen, -torch.inf)
