"""What becomes of the documents of a source once all its units were read: budget, duplicates, split.

The only step that looks at all documents at once. It sees hashes and sizes, never texts, and decides in the order
of the units, so what was decided stays when units are added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from alm.config.base import Config
from alm.corpus import duplicates
from alm.corpus.config import SourceConfig
from alm.corpus.split import VALIDATION, split_of
from alm.corpus.work import DIGEST_BYTES, UnitFiles

KEPT, EXACT, NEAR, OVER_BUDGET = range(4)
REASONS = {EXACT: "exact_duplicate", NEAR: "near_duplicate", OVER_BUDGET: "over_budget"}
_FAR_FROM_SHARE = 10


class Held(Config):
    """What is held out where hashes hold out nothing: the cluster of `digest`, or the end of its oldest document.

    `cut` is the share of that document, None for all of the cluster. Chosen once and kept when the source grows.
    """

    digest: str
    cut: float | None = None


@dataclass(frozen=True)
class Fates:
    """What becomes of the documents of one unit: `code` is one of `KEPT EXACT NEAR OVER_BUDGET`.

    `cluster` holds the SHA-256 of the oldest document of each one's cluster, `cut` the document to be cut in two.
    """

    code: NDArray[np.uint8]
    cluster: NDArray[np.uint8]
    is_held_out: NDArray[np.bool_]
    cut: tuple[int, float] | None

    def key(self) -> str:
        """A hash of everything."""
        digest = sha256(self.code.tobytes() + self.cluster.tobytes() + self.is_held_out.tobytes())
        digest.update(repr(self.cut).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Settled:
    """The fates by unit, what is held out beyond the hashes, and facts about duplicates.

    `originals` says for some documents (unit, number) that are dropped which one (unit, number) they repeat.
    """

    fates: tuple[Fates, ...]
    held: Held | None
    duplicates: dict[str, int]
    originals: dict[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class _Documents:
    """All documents of a source in order; `starts` has where each unit begins, and the end."""

    digests: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]


def settle(
    source: SourceConfig,
    units: Sequence[UnitFiles],
    *,
    validation_fraction: float,
    held: Held | None,
    examples: int,
) -> Settled:
    """Decide about every document of `units`.

    `held` is what an earlier time held out; `originals` has at most `examples` of each kind of duplicate.
    """
    documents = _load(units)
    count = len(documents.sizes)
    within = _within_budget(documents.sizes[:, 0], source)
    found = _duplicates(source, units, documents, within)
    code = np.full(count, OVER_BUDGET, dtype=np.uint8)
    code[:within] = KEPT
    if source.deduplicate.exact:
        code[:within][found.exact] = EXACT
    code[:within][found.near] = NEAR
    cluster = documents.digests.copy()
    cluster[:within] = documents.digests[found.parent]
    is_held = _held_by_hash(code, cluster, validation_fraction)
    kept = np.flatnonzero(code == KEPT)
    if validation_fraction and (held is not None or not is_held.any()):
        held = held or _choice(documents, kept, cluster, validation_fraction)
    else:
        held = None
    cut = _hold(held, is_held, kept, documents.digests, cluster)
    bounds = list(zip(documents.starts[:-1], documents.starts[1:], strict=True))
    fates = tuple(_slice(code, cluster, is_held, cut, int(first), int(last)) for first, last in bounds)
    originals = _originals(found, code, documents.starts, examples)
    return Settled(fates, held, _facts(found, code), originals)


def _load(units: Sequence[UnitFiles]) -> _Documents:
    sizes = [np.load(unit.sizes) for unit in units]
    starts = np.cumsum([0, *(len(part) for part in sizes)])
    digests = np.empty((int(starts[-1]), DIGEST_BYTES), dtype=np.uint8)
    for unit, first, last in zip(units, starts[:-1], starts[1:], strict=True):
        digests[first:last] = np.fromfile(unit.digests, dtype=np.uint8).reshape(-1, DIGEST_BYTES)
    return _Documents(digests, np.concatenate([*sizes, np.zeros((0, 2), dtype=np.int64)]), starts)


def _within_budget(bytes_before: NDArray[np.int64], source: SourceConfig) -> int:
    """How many documents the budget allows; at least one, however small it is."""
    count = len(bytes_before) if source.limit is None else min(source.limit, len(bytes_before))
    if source.max_bytes is not None:
        count = min(count, int(np.searchsorted(np.cumsum(bytes_before), source.max_bytes, side="right")))
    return max(count, min(1, len(bytes_before)))


def _duplicates(
    source: SourceConfig, units: Sequence[UnitFiles], documents: _Documents, within: int
) -> duplicates.Duplicates:
    digests = documents.digests[:within]
    if not any(source.finds_near_duplicates(is_web=web) for web in (False, True)):
        return duplicates.find(digests)
    banded = [np.load(unit.banded) + first for unit, first in zip(units, documents.starts, strict=False)]
    lengths = [int(np.searchsorted(part, within)) for part in banded]
    bands = [np.load(unit.bands, mmap_mode="r") for unit in units]

    def band(number: int) -> NDArray[np.uint64]:
        columns = [part[:length, number] for part, length in zip(bands, lengths, strict=True) if length]
        return np.concatenate(columns) if columns else np.zeros(0, dtype=np.uint64)

    every = np.concatenate([part[:length] for part, length in zip(banded, lengths, strict=True)])
    return duplicates.find(digests, band=band, banded=every)


def _held_by_hash(code: NDArray[np.uint8], cluster: NDArray[np.uint8], validation_fraction: float) -> NDArray[np.bool_]:
    held = np.zeros(len(code), dtype=bool)
    if validation_fraction:
        for number in np.flatnonzero(code == KEPT):
            held[number] = split_of(cluster[number].tobytes().hex(), validation_fraction) == VALIDATION
    return held


def _choice(
    documents: _Documents, kept: NDArray[np.int64], cluster: NDArray[np.uint8], validation_fraction: float
) -> Held | None:
    """What to hold out of a source whose hashes hold out nothing: "is it going well?" needs an answer there too.

    The cluster of the document whose size is nearest to its share of all bytes; where all are far from that, the
    end of the largest, as with a single document.
    """
    if not len(kept):
        return None
    sizes = documents.sizes[kept, 1]
    digests = [documents.digests[number].tobytes().hex() for number in kept]
    if len({cluster[number].tobytes() for number in kept}) == 1:
        return Held(digest=digests[0], cut=validation_fraction) if len(kept) == 1 else None
    wanted = validation_fraction * float(sizes.sum())
    distances = np.abs(np.log(np.maximum(sizes, 1) / wanted))
    nearest = min(np.flatnonzero(distances == distances.min()), key=lambda index: digests[index])
    if distances[nearest] <= math.log(_FAR_FROM_SHARE):
        return Held(digest=cluster[kept[nearest]].tobytes().hex())
    largest = int(np.argmax(sizes))
    return Held(digest=digests[largest], cut=min(0.5, wanted / float(sizes[largest])))


def _hold(
    held: Held | None,
    is_held: NDArray[np.bool_],
    kept: NDArray[np.int64],
    digests: NDArray[np.uint8],
    cluster: NDArray[np.uint8],
) -> tuple[int, float] | None:
    """Mark what `held` says; the document to be cut with its share, if one is."""
    if held is None or not len(kept):
        return None
    wanted = np.frombuffer(bytes.fromhex(held.digest), dtype=np.uint8)
    if held.cut is None:
        is_held[kept] |= (cluster[kept] == wanted).all(axis=1)
        return None
    same = kept[(digests[kept] == wanted).all(axis=1)]
    return (int(same[0]), held.cut) if len(same) else None


def _slice(
    code: NDArray[np.uint8],
    cluster: NDArray[np.uint8],
    is_held: NDArray[np.bool_],
    cut: tuple[int, float] | None,
    first: int,
    last: int,
) -> Fates:
    inside = (cut[0] - first, cut[1]) if cut is not None and first <= cut[0] < last else None
    return Fates(code[first:last], cluster[first:last], is_held[first:last], inside)


def _facts(found: duplicates.Duplicates, code: NDArray[np.uint8]) -> dict[str, int]:
    members = np.bincount(found.parent, minlength=1)
    repeated = members[members > 1]
    return {
        "exact": int((code == EXACT).sum()),
        "near": int((code == NEAR).sum()),
        "clusters": len(repeated),
        "largest_cluster": int(repeated.max()) if len(repeated) else 1,
    }


def _originals(
    found: duplicates.Duplicates, code: NDArray[np.uint8], starts: NDArray[np.int64], examples: int
) -> dict[tuple[int, int], tuple[int, int]]:
    shown = [int(n) for reason in (EXACT, NEAR) for n in np.flatnonzero(code == reason)[:examples]]
    return {_place(number, starts): _place(int(found.parent[number]), starts) for number in shown}


def _place(number: int, starts: NDArray[np.int64]) -> tuple[int, int]:
    unit = int(np.searchsorted(starts, number, side="right")) - 1
    return unit, number - int(starts[unit])
