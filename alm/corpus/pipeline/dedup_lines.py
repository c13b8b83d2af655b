"""Line deduplication: a line that many earlier documents contain is boilerplate, and is removed from the later ones.

It removes menus, cookie notices and page footers (CCNet, Wenzek et al. 2019, section 3.1, removes repeated paragraphs
likewise). A line counts once for each document, without the white space around it; blank lines do not count. A document
that equals an earlier one counts as that one. The lines removed from a document depend only on the documents before it,
so inputs that are added later change no earlier decision.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alm.corpus.counts import Tallies
from alm.corpus.dedup import clusters
from alm.corpus.dedup.minhash import hashes_of_spans
from alm.corpus.pipeline.unit_store import DIGEST_BYTES, Kept, Marker, UnitFiles, damaged, load_array, read_marker
from alm.corpus.records import read_records, unescape
from alm.events import Listener
from alm.files import atomic, raw_array, read_bytes, wrap_os_errors, write_bytes

REASON = "repeated_lines"
_PAIRS_AT_ONCE = 1 << 21  # about 150 MB while they are sorted
_PAIR = np.dtype([("document", "<u4"), ("key", "<u8")])
_MARGIN = b"\n" * 8  # `hashes_of_spans` reads 8 bytes at a time, up to 7 beyond the last span

Keys = NDArray[np.uint64]


def keys_of(texts: Sequence[str]) -> tuple[Keys, NDArray[np.int64], NDArray[np.int64]]:
    """Return the key of each line of `texts` that is not blank, its number in its text, and the index of the text."""
    parts = [text.encode("utf-8") for text in texts]
    data = b"\n".join([*parts, _MARGIN])
    values = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(values == ord("\n"))[: -len(_MARGIN)]
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    text_ends = np.cumsum([len(part) + 1 for part in parts]) - 1
    index = np.searchsorted(text_ends, ends)
    first_line = np.searchsorted(starts, np.concatenate([[0], text_ends[:-1] + 1])) if parts else ends
    number = np.arange(len(ends)) - first_line[index]
    inner = np.flatnonzero((values != ord(" ")) & ((values < 9) | (values > 13)))
    inner = np.append(inner, len(values))
    first = inner[np.searchsorted(inner, starts)]
    has_text = first < ends
    last = inner[np.searchsorted(inner, ends[has_text]) - 1]
    return hashes_of_spans(data, first[has_text], last + 1), number[has_text], index[has_text]


# ---- deciding -----------------------------------------------------------------------------------


def settle_lines(units: Sequence[UnitFiles], *, least: int, merges: bool) -> list[str]:
    """Find the lines to remove: those that `least` earlier documents contain. Write them beside each unit.

    Return the hash of each unit's file. `merges` counts equal documents as one. Memory is bounded except for 8 bytes a
    document (40 during the search for equal ones), because the keys are processed in ranges.
    """
    sizes = [len(_mapped(unit.line_keys, np.uint64)) for unit in units]
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
        gone = _gone(keys, documents if same is None else same[documents], least)
        _sort_out(keys[gone], documents[gone], first_documents, units)
    return [_save(unit) for unit in units]


def _mapped(path: Path, dtype: type[np.generic]) -> NDArray[Any]:
    return load_array(path, dtype=dtype, mapped=True)


def _pairs(
    units: Sequence[UnitFiles], first_documents: NDArray[np.int64], low: int, high: int
) -> tuple[Keys, NDArray[np.int64]]:
    """Read the keys from `low` to `high` of all units, and the document of each, numbered across units."""
    keys, documents = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
    for unit, first in zip(units, first_documents[:-1], strict=True):
        stored = _mapped(unit.line_keys, np.uint64)
        begin = int(np.searchsorted(stored, np.uint64(low)))
        end = int(np.searchsorted(stored, np.uint64(high), side="right"))
        keys.append(np.array(stored[begin:end]))
        documents.append(_mapped(unit.line_documents, np.uint32)[begin:end].astype(np.int64) + first)
    return np.concatenate(keys), np.concatenate(documents)


def _gone(keys: Keys, documents: NDArray[np.int64], least: int) -> NDArray[np.bool_]:
    """Mark the pairs of key and document whose key occurs in at least `least` earlier documents."""
    order = np.lexsort((documents, keys))
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = keys[order][1:] != keys[order][:-1]
    is_new = is_first.copy()
    is_new[1:] |= documents[order][1:] != documents[order][:-1]
    number = np.cumsum(is_new)
    earlier = number - number[is_first][np.cumsum(is_first) - 1]
    gone = np.empty(len(order), dtype=bool)
    gone[order] = earlier >= least
    return gone


def _sort_out(
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
class LinesWork:
    """One unit to remove repeated lines from: the files `before` are rewritten as `files`.

    `repeated` is the hash of the list of lines to remove.
    """

    before: UnitFiles
    files: UnitFiles
    key: str
    repeated: str
    signs: bool

    def marker(self) -> Marker | None:
        """Return the marker if the lines were removed already, else None."""
        marker = read_marker(self.files.marker, Marker)
        return marker if marker is not None and marker.key == self.key else None

    def finished(self) -> Marker | None:
        """Return the marker if all files that it lists exist unchanged, else None."""
        marker = self.marker()
        return marker if marker is not None and self.files.have_results(marker) else None


def lines_work(before: UnitFiles, *, key: str, repeated: str, signs: bool) -> LinesWork:
    """Return the work on a unit: `key` is that of its first pass, `repeated` the hash of the lines to remove."""
    after = UnitFiles(before.folder / "lines", before.number)
    return LinesWork(before, after, sha256(f"lines {key} {repeated}".encode()).hexdigest(), repeated, signs)


def remove_lines(job: LinesWork, tell: Listener) -> Marker:
    """Write the documents of a unit without their repeated lines. A document of which nothing is left is dropped."""
    first = read_marker(job.before.marker, Marker)
    if first is None:
        raise damaged(job.before.marker)
    began = time.perf_counter()
    job.files.folder.mkdir(parents=True, exist_ok=True)
    job.files.marker.unlink(missing_ok=True)
    tallies = Tallies()
    tallies.add(first.counts)
    with atomic(job.files.text) as file:
        kept = Kept(job.files, file, signs=job.signs, has_lines=False)
        _rewrite(job, kept, tallies)
        seconds = kept.finish()
    for step, spent in seconds.items():
        tallies.seconds[step] += spent
    tallies.seconds[REASON] += time.perf_counter() - began - sum(seconds.values())
    return kept.save(key=job.key, capped=first.capped, counts=tallies.counts())


def _rewrite(job: LinesWork, kept: Kept, tallies: Tallies) -> None:
    origins, changes_by_number = job.before.read_details()
    sizes = load_array(job.before.sizes, dtype=np.int64, dimensions=2)
    compared = set(load_array(job.before.compared, dtype=np.int64).tolist())
    for number, text, gone in _with_gone(job):
        bytes_before, size = (int(value) for value in sizes[number])
        changes = changes_by_number.get(str(number), {})
        origin = origins[number]
        data = text.encode("utf-8")
        if len(gone):
            left, removed = _without(text, gone)
            tallies.show(REASON, origin=origin, text="\n".join(removed))
            if not left:
                tallies.take_back(REASON, bytes_before, changes)
                tallies.documents_out -= 1
                tallies.bytes_out -= size
                continue
            text, data = left, left.encode("utf-8")
            more = {REASON: len(data) - size}
            changes = {**changes, **more}
            tallies.bytes_changed.update(more)
            tallies.bytes_out += more[REASON]
        kept.add(text, data, origin=origin, bytes_before=bytes_before, changes=changes, is_compared=number in compared)


def _with_gone(job: LinesWork) -> Iterator[tuple[int, str, Keys]]:
    """Yield the number and text of each document, and the keys of the lines to remove from it."""
    data = read_bytes(job.before.repeated)
    if sha256(data).hexdigest() != job.repeated:
        raise damaged(job.before.repeated)
    pairs = np.frombuffer(data, dtype=_PAIR)
    documents = np.ascontiguousarray(pairs["document"])
    with job.before.text.open("rb") as file:
        for number, raw in enumerate(read_records(file)):
            begin, end = np.searchsorted(documents, [number, number + 1])
            yield number, unescape(raw.decode("utf-8")), pairs["key"][begin:end]


def _without(text: str, gone: Keys) -> tuple[str, list[str]]:
    """Return the rest of `text` and the removed lines. Removal does not leave two blank lines together."""
    keys, numbers, _ = keys_of([text])
    going = set(numbers[np.isin(keys, gone)].tolist())
    left: list[str] = []
    removed: list[str] = []
    after_removed = False
    for number, line in enumerate(text.split("\n")):
        if number in going:
            removed.append(line)
            after_removed = True
        elif line.strip():
            left.append(line)
            after_removed = False
        elif not after_removed or (left and left[-1].strip()):
            left.append(line)
    return "\n".join(left).strip("\n"), removed
