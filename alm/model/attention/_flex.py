"""Attention with rules through FlexAttention, for GPUs, when PyTorch's plain kernels do not support the rules.

Blocks that no token sees are skipped, and no table of tokens by tokens is made (Dong et al. 2024, arXiv:2412.05496).
B batch, H query heads, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from alm.model.attention._blocked import MaskSpec


def attend_flex(q: Tensor, k: Tensor, v: Tensor, rules: MaskSpec, masks: dict[int | None, BlockMask]) -> Tensor:
    """Attend: `q` (B, H, T, E), `k` and `v` (B, K, T, E) -> (B, H, T, E). `masks` caches block masks by window."""
    if rules.window not in masks:
        masks[rules.window] = _mask(rules, q.shape[2], q.device)
    score = None if rules.slopes is None else _score(rules.slopes)
    grouped = q.shape[1] != k.shape[1]
    mixed: Tensor = _compiled()(q, k, v, score_mod=score, block_mask=masks[rules.window], enable_gqa=grouped)
    return mixed


@cache
def _compiled() -> Callable[..., Any]:  # Any: torch's own type
    """Compile FlexAttention, which would otherwise make the table of all scores."""
    return torch.compile(flex_attention)


def _mask(rules: MaskSpec, tokens: int, device: torch.device) -> BlockMask:
    if rules.documents is None:
        return _plain_mask(rules.window, tokens, device)
    return _made(visible(rules), len(rules.documents), tokens, device)


@lru_cache(maxsize=32)
def _plain_mask(window: int | None, tokens: int, device: torch.device) -> BlockMask:
    """Return the mask of a window, which is the same in every forward pass."""
    return _made(visible(MaskSpec(window=window)), None, tokens, device)


def _made(sees: Callable[..., Tensor], batch: int | None, tokens: int, device: torch.device) -> BlockMask:
    # Without compilation, this would once make the table of tokens by tokens. On a CPU, compiling is not worth it.
    is_compiled = device.type == "cuda" and not torch.compiler.is_compiling()
    make = _compiled_maker() if is_compiled else create_block_mask
    return make(sees, batch, None, tokens, tokens, device=str(device))


@cache
def _compiled_maker() -> Callable[..., Any]:  # Any: torch's own type
    return torch.compile(create_block_mask)


def visible(rules: MaskSpec) -> Callable[..., Tensor]:
    """Return the rules as FlexAttention takes them: a function of the positions of a query and a key."""
    window, documents = rules.window, rules.documents

    def sees(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = query >= key
        if window is not None:
            seen = seen & (query - key < window)
        if documents is not None:
            seen = seen & (documents[b, query] == documents[b, key])
        return seen

    return sees


def _score(slopes: Tensor) -> Callable[..., Tensor]:
    def falls(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score - slopes[h] * (query - key)

    return falls
