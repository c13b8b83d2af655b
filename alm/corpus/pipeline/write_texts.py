"""The last pass over one unit: write its shard from the text that earlier stages left, and the decisions about it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alm.artifacts import CleanShard
from alm.config.base import Config
from alm.corpus import split
from alm.corpus.conversations import from_text
from alm.corpus.counts import Counts, RunningCounts
from alm.corpus.pipeline.decide import KEPT, REASONS, Decisions
from alm.corpus.pipeline.unit_store import (
    DIGEST_BYTES,
    TextStage,
    UnitFiles,
    UnitMarker,
    is_as_written,
    load_array,
    read_marker,
    write_marker,
)
from alm.corpus.records import escape, read_records, unescape
from alm.corpus.split import TRAIN, VALIDATION
from alm.corpus.write import Format, Line, Lines, Written, identity, open_shard
from alm.events import Listener
from alm.files import atomic, read_bytes, readable, sync_folder, wrap_os_errors


class ShardMarker(Config):
    """`NNNNN.final.json`: the record that the shard of a unit is complete, here or where it was published."""

    key: str
    shard: CleanShard | None
    counts: Counts
    conversations: int = 0


class ShardFile(NamedTuple):
    """A file of a shard: its path until publication, its name afterwards, its size if known, and its SHA-256."""

    waiting: Path
    name: str
    size: int | None
    sha256: str


@dataclass(frozen=True)
class WriteTexts:
    """Writes the shard of one unit from the text of the stage `before`.

    `decisions` is the hash of the decisions about its documents; `originals` maps some dropped documents to the
    origin that they repeat. The shard will be published in `out`, where metadata lists the earlier shard `published`.
    """

    source: str
    form: Format
    before: TextStage
    decisions: str
    originals: dict[int, str]
    out: Path
    published: CleanShard | None

    @property
    def files(self) -> UnitFiles:
        """The files of the unit. The shard lies among them until it is published."""
        return self.before.files

    @property
    def name(self) -> str:
        """The shard's name once it is published, without its suffix."""
        return f"{self.source}-{self.files.number:05d}"

    @property
    def key(self) -> str:
        """A hash of all that decides the shard."""
        return sha256(f"{self.source} {self.form} {self.before.key} {self.decisions}".encode()).hexdigest()

    def finished(self) -> ShardMarker | None:
        """Return the marker if the shard exists unchanged, published or waiting for that; else None.

        A waiting file is read to check its hash. A published file is read only if no metadata lists it.
        """
        marker = read_marker(self.files.path(".final.json"), ShardMarker)
        if marker is None or marker.key != self.key:
            return None
        lines = f"{self.name}.jsonl" if self.form == "txt" else None
        if marker.shard and (marker.shard.file, marker.shard.lines_file) != (f"{self.name}.{self.form}", lines):
            return None
        return marker if all(map(self._exists, self.outputs(marker))) else None

    def _exists(self, file: ShardFile) -> bool:
        if os.path.lexists(file.waiting):
            return is_as_written(file.waiting, file.sha256, size=file.size)
        place, known = self.out / file.name, self.published
        listed = known and {known.file: known.sha256, known.lines_file: known.lines_sha256}
        if listed and listed.get(file.name) == file.sha256:
            return place.is_file() and file.size in (None, place.stat().st_size)
        return is_as_written(place, file.sha256, size=file.size)

    def outputs(self, marker: ShardMarker) -> list[ShardFile]:
        """Return the files of the shard."""
        shard = marker.shard
        if shard is None:
            return []
        text = ShardFile(self.files.path(f".final.{self.form}"), shard.file, shard.bytes, shard.sha256)
        if shard.lines_file is None or shard.lines_sha256 is None:
            return [text]
        # The lines go first: a text counts as ours only if its lines lie beside it.
        return [ShardFile(self.files.path(".final.jsonl"), shard.lines_file, None, shard.lines_sha256), text]

    def run(self, on_event: Listener) -> ShardMarker:
        """Write the shard, and its marker last."""
        shard_of_unit = _Shard(self, self.before.with_text(on_event))
        shard = shard_of_unit.write()
        counts = shard_of_unit.counts.frozen()
        marker = ShardMarker(key=self.key, shard=shard, counts=counts, conversations=shard_of_unit.conversations)
        write_marker(self.files.path(".final.json"), marker)
        return marker


class _Shard:
    """The shard of a unit while it is written. `first` describes the text to write it from."""

    def __init__(self, stage: WriteTexts, first: UnitMarker) -> None:
        self._stage = stage
        self._stem = stage.files.path(".final")
        self._first = first
        self._decisions = Decisions.read(stage.files, stage.decisions)
        self._origins, self._changes = stage.files.read_details()
        self._turns = stage.files.read_turns()
        self._digests = read_bytes(stage.files.digests)
        self._sizes = load_array(stage.files.sizes, dtype=np.int64, dimensions=2)
        self.counts = RunningCounts()
        self.counts.add(first.counts)

    @property
    def conversations(self) -> int:
        """The number of documents that stay and have messages."""
        return sum(int(self._decisions.code[number] == KEPT) for number in self._turns)

    def write(self) -> CleanShard | None:
        """Write the files of the shard; None if no document is left."""
        is_kept = self._decisions.code == KEPT
        if not is_kept.any():
            for number, raw in self._records():
                self._drop(number, raw)
            return None
        is_unchanged = bool(is_kept.all()) and self._decisions.cut is None and not self._decisions.has_pieces.any()
        stage = self._stage
        text, lines = self._linked() if is_unchanged and stage.form == "txt" else self._rewritten()
        return CleanShard(
            file=f"{stage.name}.{stage.form}",
            documents=self.counts.documents_out,
            bytes=text.bytes,
            sha256=text.sha256,
            lines_file=f"{stage.name}.jsonl" if lines else None,
            lines_sha256=lines.sha256 if lines else None,
        )

    def _linked(self) -> tuple[Written, Written | None]:
        """Use the text of the stage before as the shard, because every document stays."""
        with Lines(self._stem) as writer:
            if self._turns:
                for number, raw in self._records():
                    writer.add(self._line(number, raw))
            else:
                for number in range(self._first.documents):
                    writer.add(self._line(number))
            lines = writer.close()
        path = self._stage.files.path(".final.txt")
        _link(self._stage.files.text, path)  # a link saves writing the text a second time (ADR 0009)
        return Written(path, self._first.text_bytes, self._first.text_sha256), lines

    def _rewritten(self) -> tuple[Written, Written | None]:
        decisions = self._decisions
        with open_shard(self._stem, self._stage.form, has_messages=bool(self._turns)) as writer:
            for number, raw in self._records():
                if decisions.code[number] != KEPT:
                    self._drop(number, raw)
                elif decisions.has_pieces[number] or (decisions.cut is not None and decisions.cut[0] == number):
                    for part, line in self._parts(number, raw):
                        writer.add(part, line)
                else:
                    writer.add(raw, self._line(number, raw))
            return writer.close()

    def _records(self) -> Iterator[tuple[int, bytes]]:
        with self._stage.files.text.open("rb") as file:
            yield from enumerate(read_records(file))

    def _line(self, number: int, raw: bytes = b"") -> Line:
        """Make the document line of a document that stays, and count it if it is held out.

        `raw` is its record, which a conversation needs.
        """
        is_held_out = bool(self._decisions.is_held_out[number])
        if is_held_out:
            self.counts.hold_out(int(self._sizes[number, 1]))
        origin, turns = self._origins[number], self._turns.get(number)
        return Line(
            identity(self._stage.source, origin),
            self._digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES].hex(),
            self._decisions.cluster[number].tobytes().hex(),
            VALIDATION if is_held_out else TRAIN,
            origin,
            None if turns is None else from_text(unescape(raw.decode("utf-8")), turns),
        )

    def _parts(self, number: int, raw: bytes) -> Iterator[tuple[bytes, Line]]:
        """Cut a document, and hold out parts of it. Keep it in one piece if there is no place to cut at."""
        parts = self._cut(number, unescape(raw.decode("utf-8")))
        if len(parts) == 1:
            yield raw, self._line(number)
            return
        sizes = [len(text.encode("utf-8")) for text, _, _ in parts]
        self.counts.cut(sizes, [size for size, (_, _, name) in zip(sizes, parts, strict=True) if name == VALIDATION])
        for text, origin, name in parts:
            digest = sha256(text.encode("utf-8")).hexdigest()
            line = Line(identity(self._stage.source, origin), digest, digest, name, origin)
            yield escape(text).encode("utf-8"), line

    def _cut(self, number: int, text: str) -> list[tuple[str, str, str]]:
        """Return the parts of a document in their order, each with its origin and its split."""
        decisions, origin = self._decisions, self._origins[number]
        if decisions.has_pieces[number]:
            parts = split.in_pieces(text, decisions.cluster[number].tobytes().hex(), decisions.share)
            return [(part, f"{origin}#part-{place}", name) for place, (part, name) in enumerate(parts, start=1)]
        assert decisions.cut is not None
        ends = split.cut(text, decisions.cut[1])
        if ends is None:
            return [(text, origin, TRAIN)]
        return [(ends[0], origin, TRAIN), (ends[1], f"{origin}#end", VALIDATION)]

    def _drop(self, number: int, raw: bytes) -> None:
        reason = REASONS[int(self._decisions.code[number])]
        before, after = (int(value) for value in self._sizes[number])
        self.counts.take_back(reason, before, Counter(self._changes.get(str(number), {})), bytes_out=after)
        original = self._stage.originals.get(number)
        detail = f"repeats {original}" if original else ""
        text = raw[:2000].decode("utf-8", "ignore")
        self.counts.show(reason, origin=self._origins[number], text=text, detail=detail)


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
