"""Bounds on the rounding difference of two computations of the same value, and their distance."""

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
# Independent rounding errors grow like the square root of their number (Higham & Mary 2019, "A new approach to
# probabilistic rounding error analysis", theorem 2.4). With this factor, a larger error is not chance.
_CONFIDENCE = 3.0


def rounding(config: ModelConfig, precision: Precision) -> float:
    """Return the relative distance, in norm, that rounding alone can cause between two computations of a model.

    Each operation rounds its result to `precision`, and sums products in fp32 at least.
    """
    operations = _ROUNDINGS_PER_BLOCK * config.n_layers + _ROUNDINGS_OUTSIDE
    return rounding_of(operations, precision, terms=max(config.d_model, config.ffn_hidden_size))


def rounding_of(operations: int, precision: Precision, *, terms: int) -> float:
    """Return the same for `operations` operations in a row, each with a sum of `terms` products.

    The additions of a sum are rounded in fp32, its result in `precision`.
    """
    one = UNIT[precision] + math.sqrt(terms) * UNIT["fp32"]
    return _CONFIDENCE * math.sqrt(operations) * one


def distance(found: Tensor, wanted: Tensor) -> float:
    """Compute |found - wanted| / |wanted|, in fp64 on the CPU; infinite if a value is not finite or shapes differ."""
    if found.shape != wanted.shape:
        return math.inf
    # First to the CPU: Metal has no fp64.
    difference, size = (found.detach().cpu().double() - (there := wanted.detach().cpu().double())), there.norm()
    if not bool(torch.isfinite(difference).all()):
        return math.inf
    return float(difference.norm() / size.clamp_min(torch.finfo(torch.float64).tiny))
