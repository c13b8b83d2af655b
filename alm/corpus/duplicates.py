"""Who repeats whom within a source. Decided greedily in order: what becomes of a document depends only on the
documents before it, so inputs that are added later change nothing of what was decided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BANDS = 14


@dataclass(frozen=True)
class Duplicates:
    """For each of n documents: `parent`, the oldest of its cluster (itself if it is that), and whether it repeats an
    earlier one exactly or nearly (`near` excludes `exact`)."""

    parent: NDArray[np.int64]
    exact: NDArray[np.bool_]
    near: NDArray[np.bool_]


def find(
    digests: NDArray[np.uint8],
    *,
    band: Callable[[int], NDArray[np.uint64]] | None = None,
    banded: NDArray[np.int64] | None = None,
) -> Duplicates:
    """The duplicates among documents with `digests` (n, bytes).

    `banded` are the documents that are compared nearly, increasing, and `band(b)` is their b-th key. A document is a
    near duplicate when one of its keys is that of any earlier document, kept or not.
    """
    count = len(digests)
    first = _first_equal(digests)
    parent = first.copy()
    exact = first < np.arange(count)
    if band is not None and banded is not None and len(banded):
        for number in range(BANDS):
            keys = band(number)
            earlier = banded[_first_equal_keys(keys)]
            parent[banded] = np.minimum(parent[banded], earlier)
    is_repeat = parent < np.arange(count)
    return Duplicates(_roots(parent), exact, is_repeat & ~exact)


def _first_equal(digests: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For each row the first row that equals it."""
    if not len(digests):
        return np.zeros(0, dtype=np.int64)
    # The first 16 of SHA-256's 32 bytes: 10 billion documents meet by chance once in 10^18 times.
    halves = np.ascontiguousarray(digests[:, :16]).view(np.uint64)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    ordered = halves[order]
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
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
