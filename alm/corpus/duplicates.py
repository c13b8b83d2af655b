"""Who repeats whom within a source. Decided greedily in order: what becomes of a document depends only on the
documents before it, so inputs that are added later change nothing of what was decided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alm.files import raw_array

BANDS = 14


@dataclass(frozen=True)
class Duplicates:
    """For each of n documents: `parent`, the oldest of its cluster (itself if it is that), and whether it repeats an
    earlier one exactly, or nearly. What repeats exactly does so nearly too where it was compared."""

    parent: NDArray[np.int64]
    exact: NDArray[np.bool_]
    near: NDArray[np.bool_]


def find(
    first: NDArray[np.int64],
    *,
    band: Callable[[int], NDArray[np.uint64]] | None = None,
    compared: NDArray[np.int64] | None = None,
) -> Duplicates:
    """The duplicates among documents of which `first` says the first equal one.

    `compared` are the documents that are compared nearly, increasing, and `band(b)` is their b-th key. A document is a
    near duplicate when one of its keys is that of any earlier document, kept or not.
    """
    count = len(first)
    exact = first < np.arange(count)
    parent = first.copy()
    near = np.zeros(count, dtype=bool)
    if band is not None and compared is not None and len(compared):
        for number in range(BANDS):
            earlier = compared[_first_equal_keys(band(number))]
            near[compared] |= earlier < compared
            parent[compared] = np.minimum(parent[compared], earlier)
    return Duplicates(_roots(parent), exact, near)


def first_equal(digest_files: Sequence[Path]) -> NDArray[np.int64]:
    """For each document the first that has its digest. Each of the files holds 32 bytes a document."""
    # The first 16 of SHA-256's 32 bytes: 10 billion documents meet by chance once in 10^18 times.
    halves = [raw_array(path, dtype=np.uint64).reshape(-1, 4)[:, :2] for path in digest_files]
    return first_equal_rows(np.concatenate([np.zeros((0, 2), dtype=np.uint64), *halves]))


def first_equal_rows(halves: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each row of `halves` (n, 2) the first row that equals it."""
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    starts = np.zeros(len(order), dtype=bool)
    starts[:1] = True
    for column in range(2):
        ordered = halves[order, column]
        starts[1:] |= ordered[1:] != ordered[:-1]
    return _first_of_groups(order, starts)


def _first_equal_keys(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    return _first_of_groups(order, starts)


def _first_of_groups(order: NDArray[np.int64], starts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """`order` sorts stably, so the first of a group is its oldest member."""
    first = np.empty_like(order)
    first[order] = order[starts][np.cumsum(starts) - 1]
    return first


def _roots(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """The end of each chain of parents."""
    while True:
        further = parent[parent]
        if np.array_equal(further, parent):
            return parent
        parent = further
