"""Dropout whose masks belong to sequences, so they do not depend on the micro-batches or ranks of a step.

(Srivastava et al. 2014, "Dropout", JMLR 15.) Each sequence has a key. Its random words are key xor counter, mixed as in
SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", section 5): integer arithmetic
without a state, equal on every device.

B batch, T tokens, D model width.
"""

from __future__ import annotations

import math
from hashlib import sha256

import torch
from torch import Tensor


def _signed(number: int) -> int:
    """Return the int64 with the same bits."""
    return number - 2**64 if number >= 2**63 else number


_MIX = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)), (31, None))
# A word of 64 bits decides four values, so a probability is rounded to a multiple of 2^-16.
_LANES, _LEVELS = 4, 2**16


def step_keys(count: int, *, seed: int, step: int, first: int) -> Tensor:
    """Return the keys (count,) int64 of the sequences of `step` from number `first`, counted over all ranks."""
    digests = (sha256(f"{seed}/{step}/{place}".encode()).digest() for place in range(first, first + count))
    return torch.tensor([int.from_bytes(digest[:8], "little", signed=True) for digest in digests], dtype=torch.int64)


def random_keys(count: int, device: torch.device) -> Tensor:
    """Return keys (count,) for sequences outside any step, from PyTorch's own random numbers."""
    return torch.randint(-(2**63), 2**63 - 1, (count,), device=device)


def drop(x: Tensor, probability: float, keys: Tensor, *, site: int) -> Tensor:
    """Set a share of the values of `x` (B, T, D) to zero, and scale the others up to keep the mean.

    `site` is the number of this place in the model, from 0. Each place has its own masks.
    """
    dropped = min(round(probability * _LEVELS), _LEVELS - 1)  # never all of them
    return (x * _kept(x.shape, dropped, keys, site)).mul_(_LEVELS / (_LEVELS - dropped))


def _kept(shape: torch.Size, dropped: int, keys: Tensor, site: int) -> Tensor:
    """Return the mask (B, T, D) of the kept values."""
    batch, *rest = shape
    values = math.prod(rest)
    words = -(-values // _LANES)
    counters = torch.arange(site * words, (site + 1) * words, device=keys.device)
    found = keys[:, None] ^ counters  # (B, words)
    for shift, factor in _MIX:
        found ^= (found >> shift) & (2 ** (64 - shift) - 1)  # masked: shifting fills with the sign
        if factor is not None:
            found *= factor  # int64 wraps around
    levels = found.view(torch.int16)[:, :values]
    return (levels >= dropped - _LEVELS // 2).view(batch, *rest)
