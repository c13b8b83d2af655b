"""SwiGLU: a feed-forward layer gated by SiLU (Shazeer 2020, arXiv:2002.05202, equation 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from alm.config import base

if TYPE_CHECKING:
    from alm.model.config import ModelConfig
    from alm.model.feedforward._swiglu import SwiGLU


class Config(base.Config):
    """The inner width is `ffn_hidden_size` of the model."""

    kind: Literal["swiglu"] = Field("swiglu", description="Feed-forward layer gated by SiLU.")


def build(config: Config, model: ModelConfig) -> SwiGLU:
    """One layer's feed-forward part."""
    from alm.model.feedforward._swiglu import SwiGLU

    return SwiGLU(model.d_model, model.ffn_hidden_size)


def matmul_parameters(config: Config, model: ModelConfig) -> int:
    """Entries of the matrices that every token is multiplied with."""
    return 3 * model.d_model * model.ffn_hidden_size


def saved_bytes(config: Config, model: ModelConfig, *, narrow: int) -> float:
    """What one token leaves for the backward pass: both halves and their product."""
    return narrow * 3 * model.ffn_hidden_size
