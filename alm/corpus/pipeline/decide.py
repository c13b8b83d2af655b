"""The decision about every document of a source, once all its units are read: budget, duplicates, split.

Only this step compares documents across units, and only if duplicates are searched for. It reads hashes and sizes,
never texts, and decides in the order of the units, so decisions stay when units are added. They are stored beside
each unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from alm.artifacts import Held
from alm.corpus.config import SourceConfig
from alm.corpus.dedup import clusters
from alm.corpus.pipeline.unit_store import DIGEST_BYTES, UnitFiles, damaged, load_array
from alm.corpus.split import VALIDATION, split_of
from alm.files import raw_array, read_bytes, write_bytes

KEPT, EXACT, NEAR, OVER_BUDGET = range(4)
REASONS = {EXACT: "exact_duplicate", NEAR: "near_duplicate", OVER_BUDGET: "over_budget"}
_FAR_FROM_SHARE = 10  # a document this many times larger or smaller than the wanted share is not held out (ADR 0003)
_NO_CUT = (-1, 0)
_CUT_BYTES = 16


@dataclass
class Fates:
    """The decisions about the documents of one unit: `code` is one of `KEPT EXACT NEAR OVER_BUDGET`.

    `cluster` (n, 32) holds the SHA-256 of the oldest document of each one's cluster; `cut` is the document to cut in
    two, and the share of its second part.
    """

    code: NDArray[np.uint8]
    cluster: NDArray[np.uint8]
    is_held_out: NDArray[np.bool_]
    cut: tuple[int, float] | None = None

    def write(self, files: UnitFiles) -> str:
        """Write the decisions beside their unit. Return the hash of the file."""
        parts = (self.code, self.cluster, self.is_held_out, np.array(self.cut or _NO_CUT, dtype="<f8"))
        data = b"".join(part.tobytes() for part in parts)
        write_bytes(files.fates, data)
        return sha256(data).hexdigest()

    @classmethod
    def read(cls, files: UnitFiles, key: str) -> Fates:
        """Read the decisions about a unit; `key` is the hash of the file."""
        data = read_bytes(files.fates)
        if sha256(data).hexdigest() != key:
            raise damaged(files.fates)
        count = (len(data) - _CUT_BYTES) // (DIGEST_BYTES + 2)
        values = np.frombuffer(data, dtype=np.uint8, count=len(data) - _CUT_BYTES)
        code, cluster, is_held_out = np.split(values, [count, count + count * DIGEST_BYTES])
        number, share = np.frombuffer(data, dtype="<f8", offset=len(values))
        cut = None if number < 0 else (int(number), float(share))
        return cls(code, cluster.reshape(-1, DIGEST_BYTES), is_held_out.astype(bool), cut)


@dataclass(frozen=True)
class Settled:
    """The hashes of the decisions by unit, the text held out beyond the choice by hash, and counts of duplicates.

    `originals` maps some dropped documents (unit, number) to the document (unit, number) that they repeat.
    """

    fates: tuple[str, ...]
    held: Held | None
    duplicates: dict[str, int]
    originals: dict[tuple[int, int], tuple[int, int]]


def settle(
    source: SourceConfig,
    units: Sequence[UnitFiles],
    *,
    validation_fraction: float,
    held: Held | None,
    examples: int,
) -> Settled:
    """Decide about every document of `units`.

    `held` is the text that an earlier command held out; `originals` has at most `examples` of each kind of duplicate.
    """
    held = held if validation_fraction else None
    documents = _Documents(source, units)
    kept = _decide(documents, validation_fraction, held)
    if validation_fraction and held is None and not kept.is_any_held_out:
        held = _choice(units, kept, validation_fraction)
        if held is not None:
            kept = _decide(documents, validation_fraction, held)
    return Settled(tuple(kept.keys), held, documents.facts(), documents.originals(examples))


class _Documents:
    """All documents of a source in order. The files of a unit are read on demand."""

    def __init__(self, source: SourceConfig, units: Sequence[UnitFiles]) -> None:
        self.units = units
        self._drops_exact = source.deduplicate.exact
        counts = [unit.digests.stat().st_size // DIGEST_BYTES for unit in units]
        self._starts = np.cumsum([0, *counts])
        self._within = self._within_budget(source)
        compares_nearly = any(source.finds_near_duplicates(is_web=web) for web in (False, True))
        self._found: clusters.Duplicates | None = None
        if compares_nearly or self._drops_exact:
            self._found = self._duplicates(compares_nearly=compares_nearly)

    def _within_budget(self, source: SourceConfig) -> int:
        """Return the number of documents within the budget; at least one, however small the budget is."""
        count = int(self._starts[-1])
        most = count if source.limit is None else min(source.limit, count)
        left = source.max_bytes
        for unit, start in zip(self.units, self._starts, strict=False):
            if left is None or start >= most:
                break
            sizes = np.cumsum(_sizes(unit)[:, 0])
            if len(sizes) and sizes[-1] > left:
                most = min(most, int(start + np.searchsorted(sizes, left, side="right")))
                break
            left -= int(sizes[-1]) if len(sizes) else 0
        return max(most, min(1, count))

    def _duplicates(self, *, compares_nearly: bool) -> clusters.Duplicates:
        first = clusters.first_equal([unit.digests for unit in self.units])[: self._within]
        if not compares_nearly:
            return clusters.find(first)
        compared = [
            load_array(unit.compared, dtype=np.int64) + start
            for unit, start in zip(self.units, self._starts, strict=False)
        ]
        counts = [int(np.searchsorted(part, self._within)) for part in compared]
        every = np.concatenate([part[:count] for part, count in zip(compared, counts, strict=True)])
        del compared

        def band(number: int) -> NDArray[np.uint64]:
            stored = (load_array(unit.bands, dtype=np.uint64, dimensions=2, mapped=True) for unit in self.units)
            # Copy, so that only one file is open at a time: a view would keep its file open.
            return np.concatenate([np.array(part[number, :count]) for part, count in zip(stored, counts, strict=True)])

        return clusters.find(first, band=band, compared=every)

    def fates(self, index: int) -> Fates:
        """Return the decisions about the documents of unit `index`, before any is held out."""
        start, end = int(self._starts[index]), int(self._starts[index + 1])
        cluster = _digests(self.units[index])
        code = np.full(end - start, KEPT, dtype=np.uint8)
        inside = max(0, min(end, self._within) - start)
        if self._found is not None:
            code[:inside][self._found.near[start : start + inside]] = NEAR
            if self._drops_exact:
                code[:inside][self._found.exact[start : start + inside]] = EXACT
            self._join(cluster, self._found.parent[start : start + inside], start)
        code[inside:] = OVER_BUDGET
        return Fates(code, cluster, np.zeros(end - start, dtype=bool))

    def _join(self, cluster: NDArray[np.uint8], parent: NDArray[np.int64], start: int) -> None:
        """Set the cluster of each document that repeats another to the digest of the original."""
        repeats = np.flatnonzero(parent != np.arange(start, start + len(parent)))
        unit_of = np.searchsorted(self._starts, parent[repeats], side="right") - 1
        for unit in np.unique(unit_of):
            here = repeats[unit_of == unit]
            cluster[here] = _digests(self.units[unit])[parent[here] - self._starts[unit]]

    def facts(self) -> dict[str, int]:
        """Return the number of duplicates and of clusters."""
        found = self._found
        if found is None:
            return {}
        members = np.bincount(found.parent, minlength=1)
        repeated = members[members > 1]
        return {
            "exact": int(found.exact.sum()) if self._drops_exact else 0,
            "near": int(self._is_near().sum()),
            "clusters": len(repeated),
            "largest_cluster": int(repeated.max()) if len(repeated) else 1,
        }

    def _is_near(self) -> NDArray[np.bool_]:
        assert self._found is not None
        return self._found.near & ~self._found.exact if self._drops_exact else self._found.near

    def originals(self, examples: int) -> dict[tuple[int, int], tuple[int, int]]:
        """Return the originals of the first `examples` of each kind of duplicate."""
        if self._found is None:
            return {}
        exact = np.flatnonzero(self._found.exact)[: examples if self._drops_exact else 0]
        shown = [int(n) for numbers in (exact, np.flatnonzero(self._is_near())[:examples]) for n in numbers]
        return {self._place(number): self._place(int(self._found.parent[number])) for number in shown}

    def _place(self, number: int) -> tuple[int, int]:
        unit = int(np.searchsorted(self._starts, number, side="right")) - 1
        return unit, number - int(self._starts[unit])


def _digests(unit: UnitFiles) -> NDArray[np.uint8]:
    return raw_array(unit.digests, dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def _sizes(unit: UnitFiles) -> NDArray[np.int64]:
    return load_array(unit.sizes, dtype=np.int64, dimensions=2)


@dataclass
class _Kept:
    """Totals over the documents that stay; `clusters` stops at two, enough to know whether there is more than one."""

    keys: list[str] = field(default_factory=list)
    documents: int = 0
    text_bytes: int = 0
    clusters: set[bytes] = field(default_factory=set)
    is_any_held_out: bool = False


def _decide(documents: _Documents, validation_fraction: float, held: Held | None) -> _Kept:
    """Decide about the documents of every unit, and write the decisions."""
    seen = _Kept()
    wanted = None if held is None else np.frombuffer(bytes.fromhex(held.digest), dtype=np.uint8)
    is_cut = False
    for index, unit in enumerate(documents.units):
        fates = documents.fates(index)
        kept = np.flatnonzero(fates.code == KEPT)
        for number in kept if validation_fraction else ():
            cluster = fates.cluster[number].tobytes()
            fates.is_held_out[number] = split_of(cluster.hex(), validation_fraction) == VALIDATION
            if len(seen.clusters) < 2:
                seen.clusters.add(cluster)
        if held is not None and held.cut is None:
            fates.is_held_out[kept] |= (fates.cluster[kept] == wanted).all(axis=1)
        elif held is not None and held.cut is not None and not is_cut:
            same = kept[(_digests(unit)[kept] == wanted).all(axis=1)]
            if len(same):
                fates.cut, is_cut = (int(same[0]), held.cut), True
        seen.documents += len(kept)
        seen.text_bytes += int(_sizes(unit)[kept, 1].sum())
        seen.is_any_held_out |= bool(fates.is_held_out.any())
        seen.keys.append(fates.write(unit))
    return seen


def _choice(units: Sequence[UnitFiles], kept: _Kept, validation_fraction: float) -> Held | None:
    """Choose validation text for a source in which the hashes select none: its training needs a validation loss too.

    Prefer the cluster of the document whose size is nearest to the wanted share of all bytes. If every document is far
    from that, or there is only one, hold out the end of the largest.
    """
    if not kept.documents or (len(kept.clusters) == 1 and kept.documents > 1):
        return None
    wanted = validation_fraction * kept.text_bytes
    nearest, cluster = (math.inf, ""), ""
    largest, digest = -1, ""
    for unit, key in zip(units, kept.keys, strict=True):
        fates = Fates.read(unit, key)
        here = np.flatnonzero(fates.code == KEPT)
        if not len(here):
            continue
        sizes, digests = _sizes(unit)[here, 1], _digests(unit)[here]
        if sizes.max() > largest:
            largest, digest = int(sizes.max()), digests[int(np.argmax(sizes))].tobytes().hex()
        distances = np.abs(np.log(np.maximum(sizes, 1) / wanted))
        for number in np.flatnonzero(distances == distances.min()):
            found = (float(distances[number]), digests[number].tobytes().hex())
            if found < nearest:
                nearest, cluster = found, fates.cluster[here[number]].tobytes().hex()
    if kept.documents > 1 and nearest[0] <= math.log(_FAR_FROM_SHARE):
        return Held(digest=cluster)
    share = validation_fraction if kept.documents == 1 else min(0.5, wanted / largest)
    return Held(digest=digest, cut=share)
