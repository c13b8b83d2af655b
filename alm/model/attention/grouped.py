"""Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245), from multi-query to multi-head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from alm.config import base

if TYPE_CHECKING:
    from alm.model.attention._grouped import GroupedAttention
    from alm.model.config import ModelConfig


class Config(base.Config):
    """The number of heads is `n_heads` and `n_kv_heads` of the model."""

    kind: Literal["grouped"] = Field("grouped", description="Causal attention, key and value heads shared in groups.")


def build(config: Config, model: ModelConfig) -> GroupedAttention:
    """One layer's attention."""
    from alm.model.attention._grouped import GroupedAttention

    return GroupedAttention(model)


def matmul_parameters(config: Config, model: ModelConfig) -> int:
    """Entries of the matrices that every token is multiplied with."""
    query_width = model.n_heads * model.head_width
    kv_width = model.n_kv_heads * model.head_width
    return model.d_model * (2 * query_width + 2 * kv_width)
