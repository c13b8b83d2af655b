"""Dropout whose masks belong to sequences: the same however a step is cut into micro-batches or shared by ranks.

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
    """The int64 of the same bits."""
    return number - 2**64 if number >= 2**63 else number


_MIX = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)), (31, None))
# A word of 64 bits decides about four values: a probability is rounded to a multiple of 2^-16.
_LANES, _LEVELS = 4, 2**16


def step_keys(count: int, *, seed: int, step: int, first: int) -> Tensor:
    """The keys (count,) int64 of the sequences from place `first` on in `step`, counted over all ranks."""
    digests = (sha256(f"{seed}/{step}/{place}".encode()).digest() for place in range(first, first + count))
    return torch.tensor([int.from_bytes(digest[:8], "little", signed=True) for digest in digests], dtype=torch.int64)


def random_keys(count: int, device: torch.device) -> Tensor:
    """Keys (count,) of sequences that belong to no step, from PyTorch's own random numbers."""
    return torch.randint(-(2**63), 2**63 - 1, (count,), device=device)


def drop(x: Tensor, probability: float, keys: Tensor, *, site: int) -> Tensor:
    """`x` (B, T, D) with a share of its values zero, and the others scaled up so that means stay.

    `site` is the number of this place in the model, counted from 0: every place has masks of its own.
    """
    dropped = min(round(probability * _LEVELS), _LEVELS - 1)  # never all of them
    return (x * _kept(x.shape, dropped, keys, site)).mul_(_LEVELS / (_LEVELS - dropped))


def _kept(shape: torch.Size, dropped: int, keys: Tensor, site: int) -> Tensor:
    """Which values (B, T, D) are kept."""
    batch, *rest = shape
    values = math.prod(rest)
    words = -(-values // _LANES)
    counters = torch.arange(site * words, (site + 1) * words, device=keys.device)
    found = keys[:, None] ^ counters  # (B, words)
    for shift, factor in _MIX:
        found ^= (found >> shift) & (2 ** (64 - shift) - 1)  # a shift of signed numbers fills with the sign
        if factor is not None:
            found *= factor  # int64 wraps around
    levels = found.view(torch.int16)[:, :values]
    return (levels >= dropped - _LEVELS // 2).view(batch, *rest)
