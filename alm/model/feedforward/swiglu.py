"""SwiGLU: a feed-forward layer gated by SiLU (Shazeer 2020, arXiv:2002.05202, equation 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from alm.config import base

if TYPE_CHECKING:
    from alm.model.config import ModelConfig
    from alm.model.feedforward._swiglu import SwiGLU


class Config(base.Config):
    """Settings of the layer. The inner width is the model's `ffn_hidden_size`."""

    kind: Literal["swiglu"] = Field("swiglu", description="Feed-forward layer gated by SiLU.")


def build(config: Config, model: ModelConfig) -> SwiGLU:
    """Build the feed-forward part of one layer."""
    from alm.model.feedforward._swiglu import SwiGLU

    return SwiGLU(model.d_model, model.ffn_hidden_size)


def matmul_parameters(config: Config, model: ModelConfig) -> int:
    """Return the number of entries of the matrices that multiply every token."""
    return 3 * model.d_model * model.ffn_hidden_size


def saved_bytes(config: Config, model: ModelConfig, *, narrow: int) -> float:
    """Return the bytes that one token saves for the backward pass: both halves and their product."""
    return narrow * 3 * model.ffn_hidden_size
