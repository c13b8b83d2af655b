"""Duplicates within a source. The search is greedy and in order: the outcome for a document depends only on the
documents before it, so inputs that are added later change no earlier decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alm.corpus.dedup.minhash import BANDS
from alm.files import raw_array


@dataclass(frozen=True)
class Duplicates:
    """For each of n documents: `parent`, the oldest of its cluster (possibly itself), and whether it is an exact or a
    near duplicate of an earlier one. An exact duplicate that was compared is a near duplicate too."""

    parent: NDArray[np.int64]
    exact: NDArray[np.bool_]
    near: NDArray[np.bool_]


def find(
    first: NDArray[np.int64],
    *,
    band: Callable[[int], NDArray[np.uint64]] | None = None,
    compared: NDArray[np.int64] | None = None,
) -> Duplicates:
    """Find the duplicates among documents; `first[i]` is the first document equal to document i.

    `compared` lists, in increasing order, the documents to compare for near duplicates; `band(b)` gives their b-th
    keys. A document is a near duplicate if it shares a key with any earlier document, kept or not.
    """
    count = len(first)
    exact = first < np.arange(count)
    parent = first.copy()
    near = np.zeros(count, dtype=bool)
    if band is not None and compared is not None and len(compared):
        # Only earlier documents count. A union-find would find the same oldest members, but it would have to take
        # back documents when inputs are added (ADR 0009).
        for number in range(BANDS):
            earlier = compared[_first_equal_keys(band(number))]
            near[compared] |= earlier < compared
            parent[compared] = np.minimum(parent[compared], earlier)
    return Duplicates(_roots(parent), exact, near)


def first_equal(digest_files: Sequence[Path]) -> NDArray[np.int64]:
    """Return, for each document, the first one with the same digest. The files hold 32 bytes for each document."""
    # The first 16 of SHA-256's 32 bytes are enough: 10 billion documents collide with a probability below 10^-18.
    halves = [raw_array(path, dtype=np.uint64).reshape(-1, 4)[:, :2] for path in digest_files]
    return first_equal_rows(np.concatenate([np.zeros((0, 2), dtype=np.uint64), *halves]))


def first_equal_rows(halves: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return, for each row of `halves` (n, 2), the first row that equals it."""
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
    """Return the oldest member of each one's group. `order` is a stable sort, so that is the first of the group."""
    first = np.empty_like(order)
    first[order] = order[starts][np.cumsum(starts) - 1]
    return first


def _roots(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """Follow each chain of parents to its end. Each round halves the chains, so few rounds are needed."""
    while True:
        further = parent[parent]
        if np.array_equal(further, parent):
            return parent
        parent = further
