"""Two SwiGLUs, a small and a large one. A router chooses one for each token.

Top-1 routing as in the Switch Transformer (Fedus, Zoph and Shazeer 2022, arXiv:2101.03961, section 2.1): the output is
scaled by the probability of the chosen layer, here doubled, through which the router learns. Its load-balancing loss
(section 2.2, equation 4) and the z-loss of ST-MoE (Zoph et al. 2022, arXiv:2202.08906, equation 5) are added to the
loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from alm.config import base

if TYPE_CHECKING:
    from alm.model.config import ModelConfig
    from alm.model.feedforward._dual import DualFeedForward


# In training, capacity and balance are computed per micro-batch, so another micro-batch size trains another model.
WORKS_ON_MICRO_BATCHES = True


class Config(base.Config):
    """Settings of the two layers. The inner width of the large one is the model's `ffn_hidden_size`. Not exportable."""

    kind: Literal["dual"] = Field(
        "dual", description="A small and a large feed-forward layer; a router picks one per token. Not exportable."
    )
    small_hidden_size: int = Field(384, gt=0, le=2**20, description="Width inside the small layer.")
    capacity_factor: float = Field(
        1.25, ge=1e-6, le=2, description="In training, the large layer takes at most this multiple of half the tokens."
    )
    drop_tokens: bool = Field(
        False, description="Whether tokens beyond the capacity are dropped; otherwise the small layer takes them."
    )
    temperature: float = Field(1.0, ge=1e-3, le=1e3, description="Divisor of the router's scores.")
    balance_weight: float = Field(0.01, ge=0, le=1e3, description="Weight of the loss that keeps both layers in use.")
    z_weight: float = Field(0.001, ge=0, le=1e3, description="Weight of the loss that keeps the router's scores small.")


def build(config: Config, model: ModelConfig) -> DualFeedForward:
    """Build the feed-forward part of one layer."""
    from alm.model.feedforward._dual import DualFeedForward

    return DualFeedForward(config, model.d_model, model.ffn_hidden_size)


def parameters(config: Config, model: ModelConfig) -> int:
    """Return the number of entries of all matrices."""
    return model.d_model * (2 + 3 * config.small_hidden_size + 3 * model.ffn_hidden_size)


def matmul_parameters(config: Config, model: ModelConfig) -> int:
    """Return the average number of matrix entries that multiply a token in training.

    The large layer runs on as many tokens as its capacity, the small one on all, so that shapes do not change.
    """
    large = round(3 * model.ffn_hidden_size * config.capacity_factor / 2)
    return model.d_model * (2 + 3 * config.small_hidden_size + large)


def saved_bytes(config: Config, model: ModelConfig, *, narrow: int) -> float:
    """Return the average bytes that one token saves for the backward pass, without the router's few."""
    large = config.capacity_factor / 2 * (3 * model.ffn_hidden_size + 3 * model.d_model)
    return narrow * (3 * config.small_hidden_size + model.d_model + large)
