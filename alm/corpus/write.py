"""Writers of clean text: a shard as text with document lines beside it, as JSON lines, or as Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol

from alm.corpus.conversations import Conversation, to_json
from alm.corpus.records import framed, unescape
from alm.files import atomic

Format = Literal["txt", "jsonl.zst", "parquet"]
FORMATS: tuple[Format, ...] = ("txt", "jsonl.zst", "parquet")
_ID_LENGTH = 16
_ROWS = 1000
_COLUMNS = ("text", "id", "sha256", "cluster", "split", "origin")
_quoted = json.encoder.encode_basestring


@dataclass(frozen=True, slots=True)
class Line:
    """The data written with each document. `cluster` is the SHA-256 of its oldest duplicate.

    `messages` is None for a plain document.
    """

    id: str
    sha256: str
    cluster: str
    split: str
    origin: str
    messages: Conversation | None = None

    def json(self) -> str:
        """Return what `json.dumps` would, in a fifth of the time."""
        messages = "" if self.messages is None else f', "messages": {to_json(self.messages)}'
        return (
            f'{{"id": "{self.id}", "sha256": "{self.sha256}", "cluster": "{self.cluster}", '
            f'"split": "{self.split}", "origin": {_quoted(self.origin)}{messages}}}'
        )


def identity(source: str, origin: str) -> str:
    """Return a document's id, which depends only on the name of its source and its origin."""
    return sha256(f"{source}\0{origin}".encode("utf-8", "replace")).hexdigest()[:_ID_LENGTH]


@dataclass(frozen=True)
class Written:
    """A written file, with its size and hash."""

    path: Path
    bytes: int
    sha256: str


class Writer(Protocol):
    """Writes one shard; a context manager whose files appear if its block ends without an error."""

    def __enter__(self) -> Writer: ...

    def __exit__(self, *error: Any) -> None: ...

    def add(self, raw: bytes, line: Line) -> None:
        """Add a document, as `records.read_records` yields it."""
        ...

    def close(self) -> tuple[Written, Written | None]:
        """Finish, and return the shard and the file of its document lines, if there is one."""
        ...


def open_shard(stem: Path, form: Format, *, has_messages: bool = False) -> Writer:
    """Return a writer of the shard `stem`, whose name gets the suffix of the format.

    `has_messages` says whether some of its documents are conversations.
    """
    if form == "txt":
        return _Text(stem)
    return _JsonLines(stem) if form == "jsonl.zst" else _Parquet(stem, has_messages=has_messages)


class Hashed(io.RawIOBase):
    """Passes data on to a file that its owner closes, and hashes and counts it. A file object, as pyarrow needs."""

    def __init__(self, path: Path, write: Callable[[bytes], int]) -> None:
        self._path = path
        self._write = write
        self._digest = sha256()
        self._size = 0

    def writable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the number of bytes so far."""
        return self._size

    def write(self, data: Any) -> int:  # Any: bytes or a buffer of pyarrow
        """Write `data`."""
        data = bytes(data)
        self._write(data)
        self._digest.update(data)
        self._size += len(data)
        return len(data)

    def written(self) -> Written:
        """Return the path, the size and the hash."""
        return Written(self._path, self._size, self._digest.hexdigest())


def _named(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


class _Files:
    """The temporary files of a writer."""

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self._files = ExitStack()

    def __exit__(self, *error: Any) -> None:
        self._files.__exit__(*error)

    def _open(self, ending: str) -> Hashed:
        path = _named(self._stem, ending)
        return Hashed(path, self._files.enter_context(atomic(path)).write)


class Lines(_Files):
    """Writes a file of document lines."""

    def __init__(self, stem: Path) -> None:
        super().__init__(stem)
        self._lines = self._open(".jsonl")

    def __enter__(self) -> Lines:
        return self

    def add(self, line: Line) -> None:
        """Add a line."""
        self._lines.write(f"{line.json()}\n".encode("utf-8", "replace"))

    def close(self) -> Written:
        """Finish, and return the file."""
        self._files.close()
        return self._lines.written()


class _Text(_Files):
    def __init__(self, stem: Path) -> None:
        super().__init__(stem)
        self._lines = Lines(stem)
        self._text = self._open(".txt")

    def __enter__(self) -> _Text:
        return self

    def __exit__(self, *error: Any) -> None:
        self._lines.__exit__(*error)
        super().__exit__(*error)

    def add(self, raw: bytes, line: Line) -> None:
        self._text.write(framed(raw))
        self._lines.add(line)

    def close(self) -> tuple[Written, Written | None]:
        lines = self._lines.close()
        self._files.close()
        return self._text.written(), lines


class _JsonLines(_Files):
    def __init__(self, stem: Path) -> None:
        import pyarrow

        super().__init__(stem)
        self._shard = self._open(".jsonl.zst")
        self._stream: Any = pyarrow.CompressedOutputStream(pyarrow.PythonFile(self._shard, "w"), "zstd")

    def __enter__(self) -> _JsonLines:
        return self

    def add(self, raw: bytes, line: Line) -> None:
        text = unescape(raw.decode("utf-8"))
        self._stream.write(f'{{"text": {_quoted(text)}, {line.json()[1:]}\n'.encode("utf-8", "replace"))

    def close(self) -> tuple[Written, Written | None]:
        self._stream.close()
        self._files.close()
        return self._shard.written(), None


class _Parquet(_Files):
    def __init__(self, stem: Path, *, has_messages: bool) -> None:
        import pyarrow
        from pyarrow import parquet

        super().__init__(stem)
        self._shard = self._open(".parquet")
        self._columns = (*_COLUMNS, "messages") if has_messages else _COLUMNS
        self._schema = pyarrow.schema([(name, _column_type(name)) for name in self._columns])
        self._writer: Any = parquet.ParquetWriter(self._shard, self._schema, compression="zstd")
        self._rows: list[tuple[Any, ...]] = []

    def __enter__(self) -> _Parquet:
        return self

    def add(self, raw: bytes, line: Line) -> None:
        text = unescape(raw.decode("utf-8"))
        row = (text, line.id, line.sha256, line.cluster, line.split, line.origin)
        messages = None if line.messages is None else [message._asdict() for message in line.messages]
        self._rows.append((*row, messages)[: len(self._columns)])
        if len(self._rows) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        if self._rows:
            columns = dict(zip(self._columns, zip(*self._rows, strict=True), strict=True))
            self._writer.write_table(pyarrow.table(columns, schema=self._schema))
            self._rows = []

    def close(self) -> tuple[Written, Written | None]:
        self._flush()
        self._writer.close()
        self._files.close()
        return self._shard.written(), None


def _column_type(name: str) -> Any:
    import pyarrow

    if name == "messages":
        fields = {"role": pyarrow.string(), "content": pyarrow.large_string(), "weight": pyarrow.int64()}
        return pyarrow.list_(pyarrow.struct(list(fields.items())))
    return pyarrow.large_string() if name == "text" else pyarrow.string()
