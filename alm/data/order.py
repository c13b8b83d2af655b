"""The order of sequences: a keyed permutation that needs no memory and no state.

A Feistel network over the smallest even number of bits that holds n, walked until it lands below n
(Black & Rogaway 2002, "Ciphers with Arbitrary Finite Domains", section 4, cycle walking). The round
function is the finalizer of splitmix64 (Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom
Number Generators", figure 16). Reshuffled each epoch by its key.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 8
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1

Positions = NDArray[np.int64]
_Words = NDArray[np.uint64]


def permute(positions: Positions, *, size: int, seed: int, epoch: int) -> Positions:
    """Where each of `positions` in [0, size) goes in the permutation keyed by (seed, epoch)."""
    half_bits = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    keys = _keys(seed, epoch)
    out = _feistel(positions.astype(np.uint64), half_bits, keys)
    outside = out >= size
    while outside.any():
        out[outside] = _feistel(out[outside], half_bits, keys)
        outside = out >= size
    return out.astype(np.int64)


def _keys(seed: int, epoch: int) -> list[np.uint64]:
    state = _mix_one(_mix_one(seed & _MASK) ^ (epoch & _MASK))
    return [np.uint64(_mix_one((state + i * _GOLDEN) & _MASK)) for i in range(1, _ROUNDS + 1)]


def _feistel(values: _Words, half_bits: np.uint64, keys: list[np.uint64]) -> _Words:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half_bits) | right


def _mix(words: _Words) -> _Words:
    """The splitmix64 finalizer of each word, after adding the golden gamma."""
    with np.errstate(over="ignore"):
        words = words + np.uint64(_GOLDEN)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _mix_one(word: int) -> int:
    return int(_mix(np.array([word], dtype=np.uint64))[0])
