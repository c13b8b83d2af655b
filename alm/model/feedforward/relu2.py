"""ReLU squared: a feed-forward layer without a gate (So et al. 2021, "Primer", arXiv:2109.08668, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from alm.config import base

if TYPE_CHECKING:
    from alm.model.config import ModelConfig
    from alm.model.feedforward._relu2 import ReLU2


class Config(base.Config):
    """The inner width is `ffn_hidden_size` of the model."""

    kind: Literal["relu2"] = Field("relu2", description="Feed-forward layer with squared ReLU, without a gate.")


def build(config: Config, model: ModelConfig) -> ReLU2:
    """One layer's feed-forward part."""
    from alm.model.feedforward._relu2 import ReLU2

    return ReLU2(model.d_model, model.ffn_hidden_size)


def matmul_parameters(config: Config, model: ModelConfig) -> int:
    """Entries of the matrices that every token is multiplied with."""
    return 2 * model.d_model * model.ffn_hidden_size


def saved_bytes(config: Config, model: ModelConfig, *, narrow: int) -> float:
    """What one token leaves for the backward pass: the rectified values and their squares."""
    return narrow * 2 * model.ffn_hidden_size
