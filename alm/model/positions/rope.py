"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864) in the half-split layout of Llama."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from alm.config import base
from alm.config.base import MANY

if TYPE_CHECKING:
    from alm.model.config import ModelConfig
    from alm.model.positions._rotary import Rotary


class Scaling(base.Config):
    """Scaling of positions, for longer sequences than in the original training.

    `linear` (Chen et al. 2023, arXiv:2306.15595, equation 4) divides all positions. `yarn` (Peng et al. 2023,
    arXiv:2309.00071, sections 3.2 to 3.4) slows down only the slow pairs.
    """

    method: Literal["none", "linear", "yarn"] = Field(
        "none", description="none, linear (all positions are divided), or yarn (slow pairs are slowed down)."
    )
    factor: float = Field(
        1.0, ge=1, le=1e6, description="Ratio of the new sequence length to that of the original training."
    )
    original_max_position_embeddings: int | None = Field(
        None, gt=0, le=MANY, description="Longest sequence of the original training; yarn needs it."
    )
    beta_fast: float = Field(
        32.0,
        ge=1e-3,
        le=1e6,
        description="With yarn, pairs turning at least this often in an original sequence stay.",
    )
    beta_slow: float = Field(
        1.0, ge=1e-3, le=1e6, description="With yarn, pairs that turn at most this often are slowed down fully."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.method == "none" and self.factor != 1:
            raise ValueError("a factor needs a method: linear or yarn")
        if self.method == "yarn" and self.original_max_position_embeddings is None:
            raise ValueError("yarn needs original_max_position_embeddings")
        return self


class Config(base.Config):
    """Settings of the rotation. The base is the model's `rope_theta`."""

    kind: Literal["rope"] = Field("rope", description="Rotary position embedding.")
    scaling: Scaling = Field(Scaling(), description="How positions are scaled.")


def check(model: ModelConfig) -> None:
    """Raise `ValueError` unless a head can be rotated in pairs."""
    if model.head_width % 2:
        is_given = model.head_dim == model.head_width
        where = "head_dim" if is_given else f"d_model {model.d_model} / n_heads {model.n_heads}"
        raise ValueError(f"rope needs an even head width, and {where} = {model.head_width}")


def table_bytes(model: ModelConfig) -> int:
    """Return the bytes of the cosines and sines of all positions."""
    return 4 * model.max_position_embeddings * model.head_width


def build(config: Config, model: ModelConfig) -> Rotary:
    """Build the rotation of every position up to `max_position_embeddings`."""
    from alm.model.positions import _frequencies
    from alm.model.positions._rotary import Rotary

    frequencies, factor = _frequencies.scaled(model.head_width, model.rope_theta, config.scaling)
    return Rotary(frequencies, max_positions=model.max_position_embeddings, factor=factor)
