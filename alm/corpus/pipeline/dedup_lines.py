"""Line deduplication: a line that many earlier documents contain is boilerplate, and is removed from the later ones.

It removes menus, cookie notices and page footers (CCNet, Wenzek et al. 2019, section 3.1, removes repeated paragraphs
likewise). A document that equals an earlier one counts as that one. The lines removed from a document depend only on
the documents before it, so inputs that are added later change no earlier decision.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alm.corpus.counts import RunningCounts
from alm.corpus.dedup import clusters
from alm.corpus.dedup.lines import Keys, is_repeated, without
from alm.corpus.pipeline.unit_store import (
    DIGEST_BYTES,
    TextStage,
    UnitFiles,
    UnitMarker,
    UnitWriter,
    damaged,
    load_array,
)
from alm.corpus.records import read_records, unescape
from alm.events import Listener
from alm.files import raw_array, read_bytes, wrap_os_errors, write_bytes

REASON = "repeated_lines"
_PAIRS_AT_ONCE = 1 << 21  # about 150 MB while they are sorted
_PAIR = np.dtype([("document", "<u4"), ("key", "<u8")])


# ---- deciding -----------------------------------------------------------------------------------


def find_repeated_lines(units: Sequence[UnitFiles], *, least: int, merges: bool) -> list[str]:
    """Find the lines to remove: those that `least` earlier documents contain. Write them beside each unit.

    Return the hash of each unit's file. `merges` counts equal documents as one. Memory is bounded except for 8 bytes a
    document (40 during the search for equal ones), because the keys are processed in ranges.
    """
    sizes = [len(load_array(unit.line_keys, dtype=np.uint64, mapped=True)) for unit in units]
    counts = [unit.digests.stat().st_size // DIGEST_BYTES for unit in units]
    first_documents = np.cumsum([0, *counts])
    same = clusters.first_equal([unit.digests for unit in units]) if merges else None
    # The keys are hashes, so equal ranges of keys contain about equally many pairs.
    ranges = max(1, math.ceil(sum(sizes) / _PAIRS_AT_ONCE))
    for unit in units:
        write_bytes(_part_of(unit), b"")
    for number in range(ranges):
        low, high = (number << 64) // ranges, ((number + 1) << 64) // ranges - 1
        keys, documents = _pairs(units, first_documents, low, high)
        repeated = is_repeated(keys, documents if same is None else same[documents], least)
        _append_to_parts(keys[repeated], documents[repeated], first_documents, units)
    return [_save(unit) for unit in units]


def _pairs(
    units: Sequence[UnitFiles], first_documents: NDArray[np.int64], low: int, high: int
) -> tuple[Keys, NDArray[np.int64]]:
    """Read the keys from `low` to `high` of all units, and the document of each, numbered across units."""
    keys, documents = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
    for unit, first in zip(units, first_documents[:-1], strict=True):
        stored = load_array(unit.line_keys, dtype=np.uint64, mapped=True)
        begin = int(np.searchsorted(stored, np.uint64(low)))
        end = int(np.searchsorted(stored, np.uint64(high), side="right"))
        keys.append(np.array(stored[begin:end]))
        of_unit = load_array(unit.line_documents, dtype=np.uint32, mapped=True)
        documents.append(of_unit[begin:end].astype(np.int64) + first)
    return np.concatenate(keys), np.concatenate(documents)


def _append_to_parts(
    keys: Keys, documents: NDArray[np.int64], first_documents: NDArray[np.int64], units: Sequence[UnitFiles]
) -> None:
    """Append each pair to the file of its unit, with one file open at a time. The pairs are ordered by unit."""
    bounds = np.searchsorted(documents, first_documents)
    for number in np.flatnonzero(np.diff(bounds)).tolist():
        begin, end = bounds[number : number + 2]
        pairs = np.empty(end - begin, dtype=_PAIR)
        pairs["document"], pairs["key"] = documents[begin:end] - first_documents[number], keys[begin:end]
        part = _part_of(units[number])
        with wrap_os_errors(part), part.open("ab") as out:
            out.write(pairs.tobytes())


def _part_of(unit: UnitFiles) -> Path:
    return unit.path(".repeated.part")


def _save(unit: UnitFiles) -> str:
    part = _part_of(unit)
    pairs = np.sort(raw_array(part, dtype=_PAIR), order=("document", "key")).tobytes()
    write_bytes(unit.repeated, pairs)
    part.unlink()
    return sha256(pairs).hexdigest()


# ---- removing -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DedupLines(TextStage):
    """Writes the documents of `before` without their repeated lines. A document of which nothing is left is dropped.

    `repeated` is the hash of the list of lines to remove.
    """

    before: TextStage
    repeated: str
    signs: bool

    @classmethod
    def after(cls, before: TextStage, *, repeated: str, signs: bool) -> DedupLines:
        """Return the stage that follows `before`."""
        unit = UnitFiles(before.files.folder / "lines", before.files.number)
        key = sha256(f"lines {before.key} {repeated}".encode()).hexdigest()
        return cls(key, unit, before, repeated, signs)

    def run(self, on_event: Listener) -> UnitMarker:
        """Rewrite the text of `before`."""
        first = self.before.with_text(on_event)
        began = time.perf_counter()
        counts = RunningCounts()
        counts.add(first.counts)
        with UnitWriter(self.files, signs=self.signs, has_lines=False) as writer:
            self._rewrite(writer, counts)
            seconds = writer.finish()
        for step, spent in seconds.items():
            counts.seconds[step] += spent
        counts.seconds[REASON] += time.perf_counter() - began - sum(seconds.values())
        return writer.save(key=self.key, capped=first.capped, counts=counts.frozen())

    def _rewrite(self, writer: UnitWriter, counts: RunningCounts) -> None:
        before = self.before.files
        origins, changes_by_number = before.read_details()
        sizes = load_array(before.sizes, dtype=np.int64, dimensions=2)
        turns = before.read_turns()
        compared = set(load_array(before.compared, dtype=np.int64).tolist())
        for number, text, repeated in self._documents():
            bytes_before, size = (int(value) for value in sizes[number])
            changes = changes_by_number.get(str(number), {})
            data = text.encode("utf-8")
            if len(repeated):
                text, removed = without(text, repeated)
                data = text.encode("utf-8")
                counts.show(REASON, origin=origins[number], text="\n".join(removed))
                if not text:
                    counts.take_back(REASON, bytes_before, changes, bytes_out=size)
                    continue
                changes = {**changes, REASON: len(data) - size}
                counts.bytes_changed[REASON] += len(data) - size
                counts.bytes_out += len(data) - size
            writer.add(
                text,
                data,
                origin=origins[number],
                bytes_before=bytes_before,
                changes=changes,
                is_compared=number in compared,
                turns=turns.get(number),
            )

    def _documents(self) -> Iterator[tuple[int, str, Keys]]:
        """Yield the number and text of each document, and the keys of the lines to remove from it."""
        before = self.before.files
        data = read_bytes(before.repeated)
        if sha256(data).hexdigest() != self.repeated:
            raise damaged(before.repeated)
        pairs = np.frombuffer(data, dtype=_PAIR)
        documents = np.ascontiguousarray(pairs["document"])
        with before.text.open("rb") as file:
            for number, raw in enumerate(read_records(file)):
                begin, end = np.searchsorted(documents, [number, number + 1])
                yield number, unescape(raw.decode("utf-8")), pairs["key"][begin:end]
