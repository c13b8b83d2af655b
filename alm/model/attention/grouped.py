"""Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245), from multi-query to multi-head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from alm.config import base
from alm.config.base import MANY

if TYPE_CHECKING:
    from alm.model.attention._grouped import GroupedAttention
    from alm.model.config import ModelConfig


# With at least this many query heads per key head, blocks are faster than PyTorch's kernel (docs/benchmarks.md).
MANY_HEADS = 3


class Config(base.Config):
    """Settings of the attention. The numbers of heads are the model's `n_heads` and `n_kv_heads`."""

    kind: Literal["grouped"] = Field("grouped", description="Causal attention with shared key and value heads.")
    window: int | None = Field(
        None, gt=0, le=MANY, description="Tokens that a token sees, including itself; absent: all before it."
    )
    full_every: int = Field(
        4, ge=0, le=MANY, description="With a window, every Nth layer uses full attention; 0: none."
    )
    document_mask: bool = Field(
        False, description="Whether a token sees only its own document. An end-of-text token opens a document."
    )
    end_of_text_id: int = Field(0, ge=0, le=MANY, description="The token that opens a document, for document_mask.")


def build(config: Config, model: ModelConfig, layer: int) -> GroupedAttention:
    """Build the attention of one layer, counted from 0."""
    from alm.model.attention._grouped import GroupedAttention

    return GroupedAttention(model, layer, window=window_of(config, layer))


def window_of(config: Config, layer: int) -> int | None:
    """Return the most tokens that a token of this layer sees; None for all."""
    is_full = config.full_every and (layer + 1) % config.full_every == 0
    return None if is_full else config.window


def matmul_parameters(config: Config, model: ModelConfig) -> int:
    """Return the number of entries of the matrices that multiply every token."""
    query_width = model.n_heads * model.head_width
    kv_width = model.n_kv_heads * model.head_width
    return model.d_model * (2 * query_width + 2 * kv_width)


def saved_bytes(config: Config, model: ModelConfig, *, narrow: int) -> float:
    """Return the bytes that one token saves for the backward pass: queries, keys, values and the mixed values.

    `narrow` is the size of a number that matrix products return; norms keep fp32.
    """
    query_width, kv_width = model.n_heads * model.head_width, model.n_kv_heads * model.head_width
    before_norm = query_width + kv_width + model.n_heads + model.n_kv_heads if model.qk_norm else 0
    # PyTorch's kernel also keeps the logarithm of each softmax's sum. Blocks do not.
    sums = model.n_heads if model.n_heads < MANY_HEADS * model.n_kv_heads else 0
    return narrow * (2 * query_width + 2 * kv_width) + 4 * (before_norm + sums)


def seen(config: Config, tokens: int, layer: int) -> float:
    """Return how many tokens each of `tokens` sees on average, including itself, as if all were one document."""
    window = min(window_of(config, layer) or tokens, tokens)
    return (window * (window + 1) / 2 + (tokens - window) * window) / tokens
