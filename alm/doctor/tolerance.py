"""How far two computations of the same may lie apart, and how far they do."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alm.device import Precision
from alm.model.config import ModelConfig

# Half the distance from 1 to the next number: the largest relative error of one rounding.
UNIT: dict[Precision, float] = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}
# Rounded operations that a value goes through in a block: two norms of two operations, six products, rotation, scores,
# softmax, gate and activation, two sums.
_ROUNDINGS_PER_BLOCK = 16
_ROUNDINGS_OUTSIDE = 4
# Errors of roundings that do not depend on each other grow like the root of their number (Higham & Mary 2019, "A new
# approach to probabilistic rounding error analysis", theorem 2.4); with this factor in front, more than that is no
# accident.
_CONFIDENCE = 3.0


def rounding(config: ModelConfig, precision: Precision) -> float:
    """The relative distance, in norm, that rounding alone can put between two ways to compute what a model makes.

    Each operation rounds its result in `precision`, and adds up products in fp32 at least.
    """
    operations = _ROUNDINGS_PER_BLOCK * config.n_layers + _ROUNDINGS_OUTSIDE
    return _CONFIDENCE * math.sqrt(operations) * one(max(config.d_model, config.ffn_hidden_size), precision)


def one(terms: int, precision: Precision) -> float:
    """The relative error of one sum of so many products: of the additions, in fp32, and of its result."""
    return UNIT[precision] + math.sqrt(terms) * UNIT["fp32"]


def within(terms: int, precision: Precision, *, operations: int) -> float:
    """As `rounding`, of so many operations that follow each other, with sums of `terms`."""
    return _CONFIDENCE * math.sqrt(operations) * one(terms, precision)


def distance(found: Tensor, wanted: Tensor) -> float:
    """|found - wanted| / |wanted|, in fp64 on the CPU; infinite where a number is none, or shapes differ."""
    if found.shape != wanted.shape:
        return math.inf
    # First to the CPU: Metal has no fp64.
    difference, size = (found.detach().cpu().double() - (there := wanted.detach().cpu().double())), there.norm()
    if not bool(torch.isfinite(difference).all()):
        return math.inf
    return float(difference.norm() / size.clamp_min(torch.finfo(torch.float64).tiny))
