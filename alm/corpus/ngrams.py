"""Repeated n-grams of the words of one text, by hashes instead of strings.

An n-gram can be repeated only where both its (n-1)-grams are, so each greater length checks fewer places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)


@dataclass(frozen=True)
class Repeated:
    """The n-grams of one length that occur more than once: the start of each occurrence, in order, and its hash."""

    n: int
    positions: NDArray[np.int64]
    hashes: NDArray[np.uint64]


def repeated(words: Sequence[str], lengths: range) -> Iterator[Repeated]:
    """Yield the repeated n-grams of each of `lengths`, which must be consecutive."""
    first: dict[str, int] = {}
    ids = np.fromiter((first.setdefault(word, len(first)) for word in words), dtype=np.uint64, count=len(words))
    single = _mixed(ids + np.uint64(1))
    positions = np.arange(len(words), dtype=np.int64)
    hashes = single
    is_start = np.ones(len(words) + 1, dtype=bool)
    for n in range(2, lengths.stop):
        is_start[-1] = False
        inside = positions[(positions + n <= len(words)) & is_start[np.minimum(positions + 1, len(words))]]
        # The hash of the first n-1 words is known from the previous length.
        known = hashes[np.searchsorted(positions, inside)]
        grams = _mixed(known * _MULTIPLIER + single[inside + n - 1])
        positions, hashes = _more_than_once(inside, grams)
        is_start = np.zeros(len(words) + 1, dtype=bool)
        is_start[positions] = True
        if n in lengths:
            yield Repeated(n, positions, hashes)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = values * _MULTIPLIER
    return mixed ^ (mixed >> _SHIFT)


def _more_than_once(
    positions: NDArray[np.int64], hashes: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    ordered = np.sort(hashes)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(twice):
        return positions[:0], hashes[:0]
    at = np.minimum(np.searchsorted(twice, hashes), len(twice) - 1)
    is_repeated = twice[at] == hashes
    return positions[is_repeated], hashes[is_repeated]


def most_frequent(found: Repeated) -> tuple[int, int]:
    """Return (position, number) of the most frequent n-gram, the earliest of several. `found` must not be empty."""
    _, first, counts = np.unique(found.hashes, return_index=True, return_counts=True)
    most = counts.max()
    earliest = first[counts == most].min()
    return int(found.positions[earliest]), int(most)


def repeated_characters(found: Repeated, ends: NDArray[np.int64]) -> int:
    """Count the characters in repeated n-grams, none twice: the scan from left to right jumps over a repetition.

    `ends[i]` is the total length of the first i words.
    """
    seen: set[int] = set()
    total = free = 0
    for position, value in zip(found.positions.tolist(), found.hashes.tolist(), strict=True):
        if position < free:
            continue
        if value in seen:
            total += int(ends[position + found.n] - ends[position])
            free = position + found.n
        else:
            seen.add(value)
    return total
