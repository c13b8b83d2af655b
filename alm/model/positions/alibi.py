"""Attention with linear biases (Press et al. 2022, "Train Short, Test Long", arXiv:2108.12409)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from alm.config import base

if TYPE_CHECKING:
    from alm.model.config import ModelConfig
    from alm.model.positions._alibi import LinearBiases


class Config(base.Config):
    """Settings: none, because the slopes follow from the number of heads."""

    kind: Literal["alibi"] = Field("alibi", description="Scores fall linearly with distance; no rotation.")


def check(model: ModelConfig) -> None:
    """Accept any shape."""


def table_bytes(model: ModelConfig) -> int:
    """Return 0: one slope per head takes almost no memory."""
    return 0


def build(config: Config, model: ModelConfig) -> LinearBiases:
    """Build the biases, with one slope per head."""
    from alm.model.positions._alibi import LinearBiases

    return LinearBiases(model.n_heads)
