"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864) in the half-split layout of Llama."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from alm.config import base

if TYPE_CHECKING:
    from alm.model.config import ModelConfig
    from alm.model.positions._rotary import Rotary


class Config(base.Config):
    """Rotary positions have no settings of their own: the base is `rope_theta` of the model."""

    kind: Literal["rope"] = Field("rope", description="Rotary position embedding.")


def check(model: ModelConfig) -> None:
    """ValueError unless a head can be rotated in pairs."""
    if model.head_width % 2:
        raise ValueError(
            f"rope needs an even head width, and d_model {model.d_model} / n_heads {model.n_heads} = {model.head_width}"
        )


def build(config: Config, model: ModelConfig) -> Rotary:
    """The rotation of every position up to `max_position_embeddings`."""
    from alm.model.positions._rotary import Rotary

    return Rotary(model.head_width, max_positions=model.max_position_embeddings, theta=model.rope_theta)
