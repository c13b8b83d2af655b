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

from alm.artifacts import HoldOut
from alm.corpus.config import SourceConfig
from alm.corpus.dedup import clusters
from alm.corpus.pipeline.unit_store import DIGEST_BYTES, UnitFiles, damaged, load_array
from alm.corpus.split import LONG_BYTES, VALIDATION, is_few, piece_count, raised, share_of_hashes, split_of
from alm.files import raw_array, read_bytes, write_bytes

KEPT, EXACT, NEAR, OVER_BUDGET = range(4)
REASONS = {EXACT: "exact_duplicate", NEAR: "near_duplicate", OVER_BUDGET: "over_budget"}
_FAR_FROM_SHARE = 10  # a document this many times larger or smaller than the wanted share is not held out (ADR 0003)
_NO_CUT = (-1.0, 0.0)
_FLOAT_BYTES = 8


@dataclass
class Decisions:
    """The decisions about the documents of one unit: `code` is one of `KEPT EXACT NEAR OVER_BUDGET`.

    `cluster` (n, 32) holds the SHA-256 of the oldest document of each one's cluster. Documents are held out as a whole
    (`is_held_out`), or in pieces (`has_pieces`), which are the share `share` of each; `cut` is the document that is cut
    in two, and the share of its second part.
    """

    code: NDArray[np.uint8]
    cluster: NDArray[np.uint8]
    is_held_out: NDArray[np.bool_]
    has_pieces: NDArray[np.bool_]
    share: float = 0.0
    cut: tuple[int, float] | None = None

    def write(self, files: UnitFiles) -> str:
        """Write the decisions beside their unit. Return the hash of the file."""
        splits = self.is_held_out + 2 * self.has_pieces.astype(np.uint8)
        # A unit without pieces has the same file, and therefore the same shard, as before there were any.
        numbers = [*(self.cut or _NO_CUT), *([self.share] if self.has_pieces.any() else [])]
        data = b"".join(part.tobytes() for part in (self.code, self.cluster, splits, np.array(numbers, dtype="<f8")))
        write_bytes(files.decisions, data)
        return sha256(data).hexdigest()

    @classmethod
    def read(cls, files: UnitFiles, key: str) -> Decisions:
        """Read the decisions about a unit; `key` is the hash of the file."""
        data = read_bytes(files.decisions)
        if sha256(data).hexdigest() != key:
            raise damaged(files.decisions)
        count, left = divmod(len(data), DIGEST_BYTES + 2)
        numbers = np.frombuffer(data, dtype="<f8", offset=len(data) - left).tolist()
        values = np.frombuffer(data, dtype=np.uint8, count=len(data) - left)
        code, cluster, splits = np.split(values, [count, count + count * DIGEST_BYTES])
        cut = None if numbers[0] < 0 else (int(numbers[0]), numbers[1])
        share = numbers[2] if len(numbers) > len(_NO_CUT) else 0.0
        return cls(code, cluster.reshape(-1, DIGEST_BYTES), splits == 1, splits == 2, share, cut)


@dataclass(frozen=True)
class Outcome:
    """What was decided about a source.

    `decisions` are the hashes of the decisions by unit, `hold_out` is how text is held out beyond the choice by hash,
    and `duplicates` has counts of them. `otherwise` is the cluster to hold out if the document to cut turns out to have
    no line break. `originals` maps, by unit, some dropped documents to the origin that they repeat.
    """

    decisions: tuple[str, ...]
    hold_out: HoldOut | None
    otherwise: HoldOut | None
    duplicates: dict[str, int]
    originals: tuple[dict[int, str], ...]


def decide(
    source: SourceConfig,
    units: Sequence[UnitFiles],
    *,
    validation_fraction: float,
    hold_out: HoldOut | None,
    is_chosen: bool = False,
    examples: int,
) -> Outcome:
    """Decide about every document of `units`.

    `hold_out` is how an earlier command held out text; with `is_chosen`, one chose by hash alone. `originals` has at
    most `examples` of each kind of duplicate.
    """
    documents = _Documents(source, units)
    totals = _write_decisions(documents, validation_fraction, hold_out)
    if hold_out is None and not is_chosen and is_few(totals.text_bytes, totals.squares, validation_fraction):
        hold_out = _of_few(units, totals, validation_fraction)
        totals = _write_decisions(documents, validation_fraction, hold_out)
    if not is_chosen and totals.documents and totals.is_all_held_out:  # hashes may select all of one or two documents
        hold_out = (hold_out or HoldOut()).model_copy(update={"hash_share": 0.0})
        totals = _write_decisions(documents, validation_fraction, hold_out)
    otherwise = None
    if validation_fraction and not totals.is_any_held_out:
        choices = _choices_to_hold_out(units, totals, validation_fraction, hold_out)
        if (hold_out is None or hold_out.digest is None) and choices:
            hold_out = choices[0]
            totals = _write_decisions(documents, validation_fraction, hold_out)
        otherwise = next((choice for choice in choices if choice.cut is None and choice != hold_out), None)
    return Outcome(tuple(totals.keys), hold_out, otherwise, documents.duplicate_counts(), documents.originals(examples))


class _Documents:
    """All documents of a source, numbered across units: unit u has the numbers from `starts[u]` to `starts[u + 1]`.

    Example: a unit of the texts A B C and one of the texts D B have `starts` [0, 3, 5]. Document 4, which is number
    4 - starts[1] = 1 of unit 1, repeats document 1: `parent` is [0, 1, 2, 3, 1], `exact` is true for 4 alone, and the
    cluster of document 4 is the digest of B, read from unit 0. With `limit: 4`, `within` is 4 and document 4 is over
    budget. The files of a unit are read on demand.
    """

    def __init__(self, source: SourceConfig, units: Sequence[UnitFiles]) -> None:
        self.units = units
        self._starts = np.cumsum([0, *(unit.digests.stat().st_size // DIGEST_BYTES for unit in units)])
        self._within = self._within_budget(source)
        self._found: clusters.Duplicates | None = None
        is_nearly = any(source.finds_near_duplicates(is_web=web) for web in (False, True))
        if is_nearly or source.deduplicate.exact:
            self._found = self._duplicates(is_exactly=source.deduplicate.exact, is_nearly=is_nearly)

    def _within_budget(self, source: SourceConfig) -> int:
        """Return the number of documents within the budget; at least one, however small the budget is."""
        count = int(self._starts[-1])
        most = count if source.limit is None else min(source.limit, count)
        if source.max_bytes is not None:
            left = source.max_bytes
            for unit, start in zip(self.units, self._starts, strict=False):
                sizes = np.cumsum(_sizes(unit)[:, 0])
                if start >= most or (len(sizes) and sizes[-1] > left):
                    most = min(most, int(start + np.searchsorted(sizes, left, side="right")))
                    break
                left -= int(sizes[-1]) if len(sizes) else 0
        return max(most, min(1, count))

    def _duplicates(self, *, is_exactly: bool, is_nearly: bool) -> clusters.Duplicates:
        """Find the duplicates within the budget. A document is an exact or a near one, not both."""
        first = clusters.first_equal([unit.digests for unit in self.units])[: self._within]
        found = self._near_duplicates(first) if is_nearly else clusters.find(first)
        return clusters.Duplicates(
            found.parent,
            found.exact if is_exactly else np.zeros_like(found.exact),
            found.near & ~found.exact if is_exactly else found.near,
        )

    def _near_duplicates(self, first: NDArray[np.int64]) -> clusters.Duplicates:
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

    def decisions(self, index: int) -> Decisions:
        """Return the decisions about the documents of unit `index`, before any is held out."""
        start, end = int(self._starts[index]), int(self._starts[index + 1])
        inside = max(start, min(end, self._within))
        code = np.full(end - start, OVER_BUDGET, dtype=np.uint8)
        code[: inside - start] = KEPT
        cluster = _digests(self.units[index])
        if self._found is not None:
            code[: inside - start][self._found.exact[start:inside]] = EXACT
            code[: inside - start][self._found.near[start:inside]] = NEAR
            self._join(cluster, self._found.parent[start:inside], start)
        return Decisions(code, cluster, np.zeros(end - start, dtype=bool), np.zeros(end - start, dtype=bool))

    def _join(self, cluster: NDArray[np.uint8], parent: NDArray[np.int64], start: int) -> None:
        """Set the cluster of each document that repeats another to the digest of the original."""
        repeats = np.flatnonzero(parent != np.arange(start, start + len(parent)))
        unit_of = np.searchsorted(self._starts, parent[repeats], side="right") - 1
        for unit in np.unique(unit_of):
            here = repeats[unit_of == unit]
            cluster[here] = _digests(self.units[unit])[parent[here] - self._starts[unit]]

    def duplicate_counts(self) -> dict[str, int]:
        """Return the number of duplicates and of clusters; nothing if none were searched for."""
        if self._found is None:
            return {}
        members = np.bincount(self._found.parent, minlength=1)
        repeated = members[members > 1]
        return {
            "exact": int(self._found.exact.sum()),
            "near": int(self._found.near.sum()),
            "clusters": len(repeated),
            "largest_cluster": int(repeated.max()) if len(repeated) else 1,
        }

    def originals(self, examples: int) -> tuple[dict[int, str], ...]:
        """Return, by unit, the origins of the originals of the first `examples` of each kind of duplicate."""
        repeated: tuple[dict[int, str], ...] = tuple({} for _ in self.units)
        if (found := self._found) is None:
            return repeated
        origins: dict[int, list[str]] = {}  # by unit
        for is_duplicate in (found.exact, found.near):
            for number in np.flatnonzero(is_duplicate)[:examples].tolist():
                unit, place = self._place(number)
                original, original_place = self._place(int(found.parent[number]))
                if original not in origins:
                    origins[original], _ = self.units[original].read_details()
                repeated[unit][place] = origins[original][original_place]
        return repeated

    def _place(self, number: int) -> tuple[int, int]:
        unit = int(np.searchsorted(self._starts, number, side="right")) - 1
        return unit, number - int(self._starts[unit])


def _digests(unit: UnitFiles) -> NDArray[np.uint8]:
    return raw_array(unit.digests, dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def _sizes(unit: UnitFiles) -> NDArray[np.int64]:
    return load_array(unit.sizes, dtype=np.int64, dimensions=2)


def _may_be_cut(unit: UnitFiles, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which documents are so long that pieces of them may be held out. Conversations always stay whole."""
    is_long = sizes >= LONG_BYTES
    is_long[_whole(unit)] = False
    return is_long


def _whole(unit: UnitFiles) -> list[int]:
    """Return the numbers of the documents that are never cut."""
    return list(unit.read_turns())


@dataclass
class _Totals:
    """Totals over the documents that stay; `clusters` stops at two, enough to know whether there is more than one."""

    keys: list[str] = field(default_factory=list)
    documents: int = 0
    text_bytes: int = 0
    squares: float = 0.0
    clusters: set[bytes] = field(default_factory=set)
    is_any_held_out: bool = False
    is_all_held_out: bool = True  # whether nothing would be left for training


def _of_few(units: Sequence[UnitFiles], totals: _Totals, validation_fraction: float) -> HoldOut:
    """Return how to hold out text of a source that has few documents."""
    share = raised(validation_fraction, totals.text_bytes)
    if share == validation_fraction:
        return HoldOut(pieces=True)
    short: list[tuple[str, int]] = []
    for unit, key in zip(units, totals.keys, strict=True):
        decisions, sizes = Decisions.read(unit, key), _sizes(unit)[:, 1]
        chosen = np.flatnonzero((decisions.code == KEPT) & ~_may_be_cut(unit, sizes))
        short += [(decisions.cluster[number].tobytes().hex(), int(sizes[number])) for number in chosen]
    return HoldOut(pieces=True, piece_share=share, hash_share=share_of_hashes(short, share))


def _write_decisions(documents: _Documents, validation_fraction: float, hold_out: HoldOut | None) -> _Totals:
    """Decide about the documents of every unit, and write the decisions."""
    totals = _Totals()
    is_cut = False
    for index, unit in enumerate(documents.units):
        decisions = documents.decisions(index)
        kept = np.flatnonzero(decisions.code == KEPT)
        sizes = _sizes(unit)[:, 1]
        if validation_fraction:
            _hold_out(decisions, kept, _may_be_cut(unit, sizes), sizes, validation_fraction, hold_out)
            totals.clusters.update(decisions.cluster[number].tobytes() for number in kept[: 2 - len(totals.clusters)])
        if validation_fraction and hold_out is not None and hold_out.cut is not None and not is_cut:
            same = kept[(_digests(unit)[kept] == _wanted(hold_out)).all(axis=1)]
            if len(same):
                decisions.cut, is_cut = (int(same[0]), hold_out.cut), True
        totals.documents += len(kept)
        totals.text_bytes += int(sizes[kept].sum())
        totals.squares += float((sizes[kept].astype(np.float64) ** 2).sum())
        totals.is_any_held_out |= bool(decisions.is_held_out.any() or decisions.has_pieces.any())
        totals.is_all_held_out &= bool(decisions.is_held_out[kept].all())
        totals.keys.append(decisions.write(unit))
    return totals


def _hold_out(
    decisions: Decisions,
    kept: NDArray[np.int64],
    may_be_cut: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    validation_fraction: float,
    hold_out: HoldOut | None,
) -> None:
    """Choose what is held out of the `kept` documents of a unit: by hash, and the cluster that `hold_out` names."""
    is_long = may_be_cut & (hold_out is not None and hold_out.pieces)
    decisions.share, of_hashes = (hold_out or HoldOut()).shares(validation_fraction)
    for number in kept:
        cluster = decisions.cluster[number].tobytes().hex()
        if is_long[number]:
            decisions.has_pieces[number] = piece_count(int(sizes[number]), cluster, decisions.share) > 0
        else:
            decisions.is_held_out[number] = split_of(cluster, of_hashes) == VALIDATION
    if hold_out is not None and hold_out.digest is not None and hold_out.cut is None:
        same = kept[(decisions.cluster[kept] == _wanted(hold_out)).all(axis=1)]
        decisions.has_pieces[same] |= is_long[same]
        decisions.is_held_out[same] |= ~is_long[same]


def _wanted(hold_out: HoldOut) -> NDArray[np.uint8]:
    assert hold_out.digest is not None
    return np.frombuffer(bytes.fromhex(hold_out.digest), dtype=np.uint8)


def _choices_to_hold_out(
    units: Sequence[UnitFiles], totals: _Totals, validation_fraction: float, hold_out: HoldOut | None
) -> list[HoldOut]:
    """List validation text, best first, for a source in which hashes select none: it needs a validation loss too.

    The best is a piece of the largest document, if it is long. Else it is the cluster of the document whose size is
    nearest to the wanted share of all bytes. If every document is far from that, or there is only one, the end of the
    largest comes first, if it has a line break.
    """
    if not totals.documents or (len(totals.clusters) == 1 and totals.documents > 1):
        return []
    before = hold_out or HoldOut()
    share, _ = before.shares(validation_fraction)
    wanted = share * totals.text_bytes
    nearest, cluster = (math.inf, ""), ""
    largest, digest = -1, ""
    for unit, key in zip(units, totals.keys, strict=True):
        decisions = Decisions.read(unit, key)
        here = np.flatnonzero(decisions.code == KEPT)
        if not len(here):
            continue
        sizes, digests = _sizes(unit)[here, 1], _digests(unit)[here]
        to_cut = np.where(np.isin(here, _whole(unit)), -1, sizes)
        if to_cut.max() > largest:
            largest, digest = int(to_cut.max()), digests[int(np.argmax(to_cut))].tobytes().hex()
        distances = np.abs(np.log(np.maximum(sizes, 1) / wanted))
        for number in np.flatnonzero(distances == distances.min()):
            found = (float(distances[number]), digests[number].tobytes().hex())
            if found < nearest:
                nearest, cluster = found, decisions.cluster[here[number]].tobytes().hex()
    if before.pieces and largest >= LONG_BYTES:
        return [before.model_copy(update={"digest": digest})]
    whole = [before.model_copy(update={"digest": cluster})] if totals.documents > 1 else []
    if largest < 0 or (whole and nearest[0] <= math.log(_FAR_FROM_SHARE)):
        return whole
    if totals.documents > 1:
        share = min(0.5, wanted / largest)
    return [before.model_copy(update={"digest": digest, "cut": share}), *whole]
