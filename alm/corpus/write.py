"""Writing clean text: pairs of a text shard and its document lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from types import TracebackType

from alm.artifacts import CleanShard
from alm.corpus.records import record
from alm.corpus.split import VALIDATION, SplitDocument
from alm.files import atomic

_ID_LENGTH = 16


class ShardWriter:
    """Writes `<source>-NNNNN.txt` and its document lines, a new pair once `shard_bytes` are passed."""

    def __init__(self, folder: Path, name: str, shard_bytes: int) -> None:
        self.documents = 0
        self.bytes = 0
        self.validation_documents = 0
        self._folder = folder
        self._name = name
        self._shard_bytes = shard_bytes
        self._shards: list[CleanShard] = []
        self._open: _OpenShard | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:  # after a failure: its files learn of it, vanish, and say what is wrong
            self._open.files.__exit__(kind, error, trace)

    def add(self, document: SplitDocument) -> None:
        if self._open is None:
            self._open = _OpenShard(self._folder, f"{self._name}-{len(self._shards):05d}")
        self._open.add(document, identity=_identity(self._name, document))
        self.documents += 1
        self.bytes += document.bytes
        self.validation_documents += document.split == VALIDATION
        if self._open.text.size >= self._shard_bytes:
            self._finish_shard()

    def close(self) -> tuple[CleanShard, ...]:
        if self._open is not None:
            self._finish_shard()
        return tuple(self._shards)

    def _finish_shard(self) -> None:
        assert self._open is not None
        shard, self._open = self._open, None
        self._shards.append(shard.finish())


class _OpenShard:
    """The pair of files being written."""

    def __init__(self, folder: Path, stem: str) -> None:
        self.files = ExitStack()
        self.stem = stem
        self.documents = 0
        self.text = _Hashed(self.files.enter_context(atomic(folder / f"{stem}.txt")).write)
        self.lines = _Hashed(self.files.enter_context(atomic(folder / f"{stem}.jsonl")).write)

    def add(self, document: SplitDocument, *, identity: str) -> None:
        line = {
            "id": identity,
            "sha256": document.sha256,
            "cluster": document.cluster,
            "split": document.split,
            "origin": document.origin,
        }
        self.text.write(record(document.text))
        self.lines.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        self.documents += 1

    def finish(self) -> CleanShard:
        self.files.close()
        return CleanShard(
            file=f"{self.stem}.txt",
            documents=self.documents,
            bytes=self.text.size,
            sha256=self.text.digest.hexdigest(),
            lines_file=f"{self.stem}.jsonl",
            lines_sha256=self.lines.digest.hexdigest(),
        )


class _Hashed:
    """Writes through, hashing and counting on the way."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self._write = write
        self.digest = sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._write(data)
        self.digest.update(data)
        self.size += len(data)


def _identity(source: str, document: SplitDocument) -> str:
    """A document's id: stable while its source's name and its origin are."""
    return sha256(f"{source}\0{document.origin}".encode("utf-8", "replace")).hexdigest()[:_ID_LENGTH]
