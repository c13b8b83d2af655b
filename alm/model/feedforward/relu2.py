"""ReLU squared: a feed-forward layer without a gate (So et al. 2021, "Primer", arXiv:2109.08668, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from alm.config import base

if TYPE_CHECKING:
    from alm.model.config import ModelConfig
    from alm.model.feedforward._relu2 import ReLU2


class Config(base.Config):
    """Settings of the layer. The inner width is the model's `ffn_hidden_size`."""

    kind: Literal["relu2"] = Field("relu2", description="Feed-forward layer with squared ReLU, without a gate.")


def build(config: Config, model: ModelConfig) -> ReLU2:
    """Build the feed-forward part of one layer."""
    from alm.model.feedforward._relu2 import ReLU2

    return ReLU2(model.d_model, model.ffn_hidden_size)


def matmul_parameters(config: Config, model: ModelConfig) -> int:
    """Return the number of entries of the matrices that multiply every token."""
    return 2 * model.d_model * model.ffn_hidden_size


def saved_bytes(config: Config, model: ModelConfig, *, narrow: int) -> float:
    """Return the bytes that one token saves for the backward pass: the rectified values and their squares."""
    return narrow * 2 * model.ffn_hidden_size
