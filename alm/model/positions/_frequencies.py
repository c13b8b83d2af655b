"""Frequencies of the pairs of a head, in radians per token, scaled or not. E head width."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from alm.model.positions.rope import Scaling


def scaled(width: int, theta: float, scaling: Scaling) -> tuple[Tensor, float]:
    """Return the frequencies (E/2,) in fp32 on the CPU, and the factor of cosines and sines."""
    pairs = torch.arange(0, width, 2, dtype=torch.float32, device="cpu")
    plain: Tensor = theta ** -(pairs / width)
    if scaling.method == "none":
        return plain, 1.0
    if scaling.method == "linear":
        return plain / scaling.factor, 1.0
    low, high = _ramp(width, theta, scaling)
    share = ((pairs / 2 - low) / (high - low)).clamp(0, 1)
    return plain / scaling.factor * share + plain * (1 - share), 0.1 * math.log(scaling.factor) + 1.0


def _ramp(width: int, theta: float, scaling: Scaling) -> tuple[float, float]:
    """Return the pairs between which the slow-down sets in: those that turn `beta_fast` and `beta_slow` times."""

    length = scaling.original_max_position_embeddings
    assert length is not None

    def pair_that_turns(times: float) -> float:
        return width * math.log(length / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = max(0, math.floor(pair_that_turns(scaling.beta_fast)))
    high = min(width - 1, math.ceil(pair_that_turns(scaling.beta_slow)))
    return low, high + (0.001 if low == high else 0)
