"""The order of sequences: a keyed permutation that needs no memory and no state.

A Feistel network over the smallest even number of bits that holds n, repeated until it lands below n (Black & Rogaway
2002, "Ciphers with Arbitrary Finite Domains", section 4, cycle walking). The round function is the finalizer of
splitmix64 (Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators", figure 16). The key changes with
each epoch, which reshuffles.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 8
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1

Positions = NDArray[np.int64]
_Words = NDArray[np.uint64]


def permute(positions: Positions, *, size: int, seed: int, epoch: int) -> Positions:
    """Return the image of each of `positions` in [0, size) under the permutation keyed by (seed, epoch)."""
    half_bits = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    keys = _keys(seed, epoch)
    out = _feistel(positions.astype(np.uint64), half_bits, keys)
    # The network permutes a domain of at most four times `size`. Applying it again to a result outside [0, size) walks
    # along its cycle until it is inside, so the result is still a permutation.
    outside = np.flatnonzero(out >= size)
    while len(outside):
        walked = _feistel(out[outside], half_bits, keys)
        out[outside] = walked
        outside = outside[walked >= size]
    return out.astype(np.int64)


@functools.lru_cache(maxsize=64)
def _keys(seed: int, epoch: int) -> list[np.uint64]:
    state = _mix_one(_mix_one(seed & _MASK) ^ (epoch & _MASK))
    return [np.uint64(_mix_one((state + i * _GOLDEN) & _MASK)) for i in range(1, _ROUNDS + 1)]


def _feistel(values: _Words, half_bits: np.uint64, keys: list[np.uint64]) -> _Words:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & mask
    for key in keys:
        mixed = _mix_(right ^ key)
        mixed &= mask
        mixed ^= left
        left, right = right, mixed
    left <<= half_bits
    left |= right
    return left


def _mix_(words: _Words) -> _Words:
    """Apply the splitmix64 finalizer to each word, after adding the golden gamma, in place."""
    words += np.uint64(_GOLDEN)  # arrays wrap around silently, where scalars would warn
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def _mix_one(word: int) -> int:
    return int(_mix_(np.array([word], dtype=np.uint64))[0])
