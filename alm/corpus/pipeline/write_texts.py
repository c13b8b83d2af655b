"""The last pass over one unit: write its shard from the text of the first pass and the decisions of `settle`."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from alm.artifacts import CleanShard
from alm.config.base import Config
from alm.corpus import split
from alm.corpus.counts import Counts, Tallies
from alm.corpus.pipeline.decide import KEPT, REASONS, Fates
from alm.corpus.pipeline.unit_store import (
    DIGEST_BYTES,
    Marker,
    UnitFiles,
    damaged,
    load_array,
    read_marker,
    write_marker,
)
from alm.corpus.records import escape, read_records, unescape
from alm.corpus.split import TRAIN, VALIDATION
from alm.corpus.write import Format, Line, Lines, Written, identity, open_shard
from alm.events import Listener
from alm.files import atomic, read_bytes, readable, sync_folder, wrap_os_errors


class FinishedMarker(Config):
    """`NNNNN.final.json`: the record that the shard of a unit is complete, here or where it was published."""

    key: str
    shard: CleanShard | None
    counts: Counts


@dataclass(frozen=True)
class Finishing:
    """One unit to finish. `originals` maps some dropped documents to the origin that they repeat."""

    source: str
    files: UnitFiles
    form: Format
    unit_key: str
    fates_key: str
    originals: dict[int, str]

    @property
    def stem(self) -> Path:
        """The path of the shard until it is published, without its suffix."""
        return self.files.path(".final")

    @property
    def marker_path(self) -> Path:
        """The path of the marker, written last."""
        return self.files.path(".final.json")

    @property
    def name(self) -> str:
        """The shard's name once it is published, without its suffix."""
        return f"{self.source}-{self.files.number:05d}"

    def key(self) -> str:
        """Return a hash of all that decides the shard."""
        return sha256(f"{self.source} {self.form} {self.unit_key} {self.fates_key}".encode()).hexdigest()

    def finished(self) -> FinishedMarker | None:
        """Return the marker if the unit was finished with this key and these names, else None."""
        marker = read_marker(self.marker_path, FinishedMarker)
        return marker if marker is not None and marker.key == self.key() and self._is_named_so(marker.shard) else None

    def _is_named_so(self, shard: CleanShard | None) -> bool:
        lines = f"{self.name}.jsonl" if self.form == "txt" else None
        return shard is None or (shard.file, shard.lines_file) == (f"{self.name}.{self.form}", lines)


def finish(job: Finishing, tell: Listener) -> FinishedMarker:
    """Write the shard of a unit and its marker."""
    made = _Finish(job)
    shard = made.shard()
    marker = FinishedMarker(key=job.key(), shard=shard, counts=made.counts())
    write_marker(job.marker_path, marker)
    return marker


class _Finish:
    def __init__(self, job: Finishing) -> None:
        first = read_marker(job.files.marker, Marker)
        if first is None:
            raise damaged(job.files.marker)
        self._job = job
        self._first = first
        self._fates = Fates.read(job.files, job.fates_key)
        self._tallies = Tallies()
        self._tallies.add(first.counts)
        self._origins, self._changes = job.files.read_details()
        self._digests = read_bytes(job.files.digests)
        self._sizes = load_array(job.files.sizes, dtype=np.int64, dimensions=2)

    def counts(self) -> Counts:
        return self._tallies.counts()

    def shard(self) -> CleanShard | None:
        """Write the files of the shard; None if no document is left."""
        if not (self._fates.code == KEPT).any():
            self._drop_all()
            return None
        unchanged = bool((self._fates.code == KEPT).all()) and self._fates.cut is None
        is_linked = unchanged and self._job.form == "txt"
        text, lines = self._as_it_is() if is_linked else self._rewritten()
        assert self._tallies.documents_out
        job = self._job
        return CleanShard(
            file=f"{job.name}.{job.form}",
            documents=self._tallies.documents_out,
            bytes=text.bytes,
            sha256=text.sha256,
            lines_file=f"{job.name}.jsonl" if lines else None,
            lines_sha256=lines.sha256 if lines else None,
        )

    def _drop_all(self) -> None:
        for number, raw in self._records():
            self._drop(number, raw)

    def _as_it_is(self) -> tuple[Written, Written | None]:
        """Use the text of the first pass as the shard, because every document stays."""
        with Lines(self._job.stem) as writer:
            for number in range(self._first.documents):
                writer.add(self._line(number))
            lines = writer.close()
        path = self._job.files.path(".final.txt")
        _link(self._job.files.text, path)  # a link saves writing the text a second time (ADR 0009)
        return Written(path, self._first.text_bytes, self._first.text_sha256), lines

    def _rewritten(self) -> tuple[Written, Written | None]:
        cut = self._fates.cut
        with open_shard(self._job.stem, self._job.form) as writer:
            for number, raw in self._records():
                if self._fates.code[number] != KEPT:
                    self._drop(number, raw)
                elif cut is not None and cut[0] == number:
                    for part, line in self._parts(number, raw, cut[1]):
                        writer.add(part, line)
                else:
                    writer.add(raw, self._line(number))
            return writer.close()

    def _records(self) -> Iterator[tuple[int, bytes]]:
        with self._job.files.text.open("rb") as file:
            yield from enumerate(read_records(file))

    def _line(self, number: int) -> Line:
        """Make the document line of a document that stays, and count it if it is held out."""
        held = bool(self._fates.is_held_out[number])
        self._tallies.validation_documents += held
        origin = self._origins[number]
        return Line(
            identity(self._job.source, origin),
            self._digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES].hex(),
            self._fates.cluster[number].tobytes().hex(),
            VALIDATION if held else TRAIN,
            origin,
        )

    def _parts(self, number: int, raw: bytes, fraction: float) -> Iterator[tuple[bytes, Line]]:
        """Cut a document in two, and hold out the second part. Keep it in one piece if it has no line to cut at."""
        parts = split.cut(unescape(raw.decode("utf-8")), fraction)
        if parts is None:
            yield raw, self._line(number)
            return
        self._tallies.documents_out += 1
        self._tallies.validation_documents += 1
        origins = (self._origins[number], f"{self._origins[number]}#end")
        for text, origin, name in zip(parts, origins, (TRAIN, VALIDATION), strict=True):
            digest = sha256(text.encode("utf-8")).hexdigest()
            line = Line(identity(self._job.source, origin), digest, digest, name, origin)
            yield escape(text).encode("utf-8"), line

    def _drop(self, number: int, raw: bytes) -> None:
        reason = REASONS[int(self._fates.code[number])]
        before, after = (int(value) for value in self._sizes[number])
        changes = Counter(self._changes.get(str(number), {}))
        self._tallies.take_back(reason, before, changes)
        self._tallies.documents_out -= 1
        self._tallies.bytes_out -= after
        origin = self._job.originals.get(number)
        detail = f"repeats {origin}" if origin else ""
        text = raw[:2000].decode("utf-8", "ignore")
        self._tallies.show(reason, origin=self._origins[number], text=text, detail=detail)


def _link(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy if the file system has no hard links."""
    with wrap_os_errors(target):
        target.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.link(source, target)
            sync_folder(target.parent)
            return
    with atomic(target) as copy, readable(source), source.open("rb") as file:
        shutil.copyfileobj(file, copy)
