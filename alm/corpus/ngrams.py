"""Repeated n-grams of the words of one text, by hashes instead of strings.

An n-gram can be repeated only where both (n-1)-grams in it are, so each longer length looks at fewer places.
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
    """The n-grams of one length that occur more than once: where each occurrence begins, in order, and its hash."""

    n: int
    positions: NDArray[np.int64]
    hashes: NDArray[np.uint64]


def repeated(words: Sequence[str], lengths: range) -> Iterator[Repeated]:
    """The repeated n-grams of each of `lengths`, which begin at 2 and grow by one."""
    first: dict[str, int] = {}
    ids = np.fromiter((first.setdefault(word, len(first)) for word in words), dtype=np.uint64, count=len(words))
    single = _mixed(ids + np.uint64(1))
    positions = np.arange(len(words), dtype=np.int64)
    hashes = single
    is_start = np.ones(len(words) + 1, dtype=bool)
    for n in range(2, lengths.stop):
        is_start[-1] = False
        inside = positions[(positions + n <= len(words)) & is_start[np.minimum(positions + 1, len(words))]]
        # The hash of the first n-1 words is known where the place was looked at before.
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
    """(position, number) of the n-gram that occurs most often, the earliest of several; there must be one."""
    _, first, counts = np.unique(found.hashes, return_index=True, return_counts=True)
    most = counts.max()
    earliest = first[counts == most].min()
    return int(found.positions[earliest]), int(most)


def repeated_characters(found: Repeated, ends: NDArray[np.int64]) -> int:
    """Characters in n-grams that were seen before, none counted twice: read left to right, a repetition is jumped over.

    `ends[i]` is the length of the first i words together.
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
