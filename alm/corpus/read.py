"""Reading clean text back: whole corpora, single shards, and plain text files of any origin.

This is what later stages use. A file that `alm corpus prepare` wrote comes with its document lines;
a foreign `.txt` is one document, or as many as it has marks, and has no split yet.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from alm import artifacts
from alm.artifacts import CleanShard, FileRecord, SourceMetadata
from alm.corpus import paths
from alm.corpus.records import END, read_records, unescape
from alm.corpus.report import HTML_NAME, JSON_NAME
from alm.errors import ArtifactError, InputError
from alm.files import Readable, chunks, not_utf8, open_binary, suffix
from alm.files import sha256 as sha256_of

_SHARD = re.compile(r"(?P<source>.+)-\d{5}\.(?:txt|jsonl\.zst|parquet)")
_TABLES = ("jsonl.zst", "parquet")  # formats whose rows hold the document lines
_SUFFIXES = frozenset({".txt"})
_BATCH_ROWS = 1000
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class CleanFile:
    """A text file to read. `shard` is there when metadata vouches for it."""

    path: Path
    source: str
    shard: CleanShard | None
    command: str = ""

    def record(self, *, relative_to: Path) -> FileRecord:
        """The file with its hash: the metadata's if there is one, so a corpus is not read twice."""
        known = self.shard.sha256 if self.shard else None
        return artifacts.record(self.path, relative_to=relative_to, sha256=known)

    def records(self, *, relative_to: Path) -> list[FileRecord]:
        """The file, and its document lines where there are some: they say what is held out."""
        found = [self.record(relative_to=relative_to)]
        if self.shard is not None and self.shard.lines_file and self.shard.lines_sha256:
            lines = self.path.with_name(self.shard.lines_file)
            if lines.is_file():
                found.append(artifacts.record(lines, relative_to=relative_to, sha256=self.shard.lines_sha256))
        return found


@dataclass(frozen=True)
class CleanDocument:
    """A document read back. `split` is None for foreign text."""

    text: str
    source: str
    origin: str
    split: str | None


def has_document_lines(path: Path) -> bool:
    """Whether the text file `path` has document lines of ours beside it."""
    lines = path.with_suffix(".jsonl")
    if not lines.is_file():
        return False
    try:
        with lines.open("rb") as file:
            first = file.readline()
        return {"id", "sha256", "cluster", "split", "origin"} <= set(json.loads(first))
    except (OSError, ValueError, TypeError):
        return False


def has_shards(metadata: Path) -> bool:
    """Whether `metadata`, some .json file, has shards of a clean corpus beside it."""
    stem = f"{glob.escape(metadata.stem)}-{'[0-9]' * 5}"
    texts = metadata.parent.glob(f"{stem}.txt")
    return any(has_document_lines(path) for path in texts) or bool(_tables(metadata.parent, stem))


def _tables(folder: Path, stem: str) -> list[Path]:
    return sorted(path for form in _TABLES for path in folder.glob(f"{stem}.{form}"))


def is_text(path: Path) -> bool:
    """Whether `path` may hold text, and is not what `alm corpus prepare` wrote beside some."""
    if path.name in (JSON_NAME, HTML_NAME):
        return False
    if path.suffix == ".jsonl":
        return not has_document_lines(path.with_suffix(".txt")) or not path.with_suffix(".txt").is_file()
    return path.suffix != ".json" or not has_shards(path)


def find(given: Iterable[str | Path]) -> list[CleanFile]:
    """The text files that paths, folders and globs mean, sorted, each source's shards in order.

    A folder that holds clean text means what its metadata lists, and foreign .txt files beside it.
    """
    expanded = {path for one in given for path in _expanded(str(one))}
    found = [_clean_file(path) for path in expanded if is_text(path)]
    if not found:
        raise InputError("no text files are named", hint="run `alm corpus prepare` first")
    return sorted(found, key=lambda file: (file.source, file.path.as_posix()))


def _expanded(given: str) -> list[Path]:
    folder = Path(given).expanduser()
    if not folder.is_dir():
        return paths.expand([given], suffixes=_SUFFIXES)
    listed = [path for path in folder.rglob("*.json") if not path.name.startswith((".", "_"))]
    visible = [path for path in listed if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    tables = [t for path in visible for t in _tables(path.parent, f"{glob.escape(path.stem)}-{'[0-9]' * 5}")]
    # A folder without any text is an error, unless what it holds is clean text in tables.
    has_text = not tables or any(folder.rglob("*.txt"))
    return tables + (paths.expand([given], suffixes=_SUFFIXES) if has_text else [])


def _clean_file(path: Path) -> CleanFile:
    match = _SHARD.fullmatch(path.name)
    if match is None or (path.suffix == ".txt" and not has_document_lines(path)):
        return CleanFile(path, _foreign_name(path), None)
    name = match["source"]
    hint = f"run `alm corpus prepare --only {name} --out {path.parent}` to finish it"
    metadata_path = path.with_name(f"{name}.json")
    if not metadata_path.is_file():
        raise ArtifactError(f"`{path}` is part of an unfinished corpus: `{metadata_path}` does not exist", hint=hint)
    metadata = artifacts.read(metadata_path, SourceMetadata, hint=hint)
    for shard in metadata.shards:
        if shard.file == path.name:
            return CleanFile(path, name, shard, metadata.command)
    raise ArtifactError(f"`{path}` is not among the shards of `{metadata_path}`", hint=f"rm {path.with_suffix('')}.*")


def _foreign_name(path: Path) -> str:
    return path.name.removesuffix(path.suffix) if suffix(path) == path.suffix.lower() else Path(path.stem).stem


def read_documents(files: Sequence[CleanFile]) -> Iterator[CleanDocument]:
    """Every document of `files`, exactly as it was cleaned.

    Raises `ArtifactError` when a shard and its document lines do not fit, `InputError` for text that
    is not UTF-8.
    """
    for file in files:
        yield from _read_file(file)


def _read_file(file: CleanFile) -> Iterator[CleanDocument]:
    if file.shard is not None and file.path.suffix != ".txt":
        yield from _read_table(file, file.shard)
        return
    lines = _read_lines(file)
    number = 0
    with open_binary(file.path) as opened:
        hashed = _Hashing(opened)
        for number, raw in enumerate(read_records(hashed), start=1):
            text = _text(raw, file)
            if file.shard is None:
                if text.strip():
                    yield CleanDocument(text, file.source, f"{file.path.as_posix()}#{number}", None)
                continue
            line = next(lines, None)
            if line is None:
                raise _not_fitting(file)
            yield CleanDocument(text, file.source, line.origin, line.split)
    if file.shard is not None:
        if hashed.digest.hexdigest() != file.shard.sha256:
            raise _changed(file.path, file)
        if number != file.shard.documents or next(lines, None) is not None:
            raise _not_fitting(file)


@dataclass(frozen=True)
class CleanPart:
    """Some documents of a file: the bytes `start` to `end` of a text, whose document lines begin at `lines_start`.

    `end` is None for a file that cannot be cut.
    """

    file: CleanFile
    start: int = 0
    end: int | None = None
    first: int = 0
    lines_start: int = 0

    @property
    def source(self) -> str:
        """The source that the file belongs to."""
        return self.file.source

    def where(self) -> tuple[int, int | None, int]:
        """Which part of its file it is."""
        return self.start, self.end, self.first


def parts_of(file: CleanFile, *, part_bytes: int) -> Iterator[CleanPart]:
    """`file` in parts of whole documents, of about `part_bytes`; what makes them up is `read_part`.

    The file is gone through once, and its hash is checked, before the first part is given: a part does not look back.
    """
    if file.path.suffix != ".txt":
        yield CleanPart(file)
        return
    cuts = [(0, 0)]
    documents = 0
    with open_binary(file.path) as opened:
        hashed = _Hashing(opened)
        for documents, end in enumerate(_ends_of(hashed), start=1):
            if end - cuts[-1][0] >= part_bytes:
                cuts.append((end, documents))
        size = hashed.size
    if cuts[-1][0] < size or len(cuts) == 1:
        cuts.append((size, documents))
    offsets = [0] * len(cuts)
    if file.shard is not None:
        if hashed.digest.hexdigest() != file.shard.sha256:
            raise _changed(file.path, file)
        if documents != file.shard.documents:
            raise _not_fitting(file)
        offsets = _line_offsets(file, [first for _, first in cuts])
    for (start, first), (end, _), lines_start in zip(cuts, cuts[1:], offsets, strict=False):
        yield CleanPart(file, start, end, first, lines_start)


def _ends_of(file: Readable) -> Iterator[int]:
    """Where each record of a text that has marks ends."""
    position = 0
    tail = b"\n"  # so that a mark in the very first line is found like any other
    for chunk in chunks(file, _CHUNK_BYTES):
        data = tail + chunk
        searched = 0
        while (found := data.find(END, searched)) >= 0:
            searched = found + len(END) - 1  # its newline may begin the next one
            yield position - len(tail) + found + len(END)
        position += len(chunk)
        tail = data[max(searched, len(data) - len(END) + 1) :]


def _line_offsets(file: CleanFile, firsts: Sequence[int]) -> list[int]:
    """Where the document lines with these numbers begin; checks the hash and the number of lines."""
    assert file.shard is not None
    digest = sha256()
    wanted = set(firsts)
    found: dict[int, int] = {}
    offset = number = 0
    with file.path.with_suffix(".jsonl").open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if number - 1 in wanted:
                found[number - 1] = offset
            digest.update(line)
            offset += len(line)
    found[number] = offset
    if digest.hexdigest() != file.shard.lines_sha256:
        raise _changed(file.path.with_suffix(".jsonl"), file)
    if number != file.shard.documents:
        raise _not_fitting(file)
    return [found[first] for first in firsts]


def read_part(part: CleanPart) -> Iterator[CleanDocument]:
    """The documents of a part, as `read_documents` gives them."""
    file = part.file
    if part.end is None or suffix(file.path) != file.path.suffix.lower():
        yield from _read_file(file)
        return
    with ExitStack() as stack:
        opened = stack.enter_context(file.path.open("rb"))
        opened.seek(part.start)
        lines = None
        if file.shard is not None:
            lines = stack.enter_context(file.path.with_suffix(".jsonl").open("rb"))
            lines.seek(part.lines_start)
        for number, raw in enumerate(read_records(_Limited(opened, part.end - part.start)), start=part.first + 1):
            text = _text(raw, file)
            if lines is not None:
                values = json.loads(lines.readline())
                yield CleanDocument(text, file.source, values["origin"], values["split"])
            elif text.strip():
                yield CleanDocument(text, file.source, f"{file.path.as_posix()}#{number}", None)


class _Limited:
    """The next `left` bytes of a file."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file = file
        self._left = left

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


def _read_table(file: CleanFile, shard: CleanShard) -> Iterator[CleanDocument]:
    if sha256_of(file.path) != shard.sha256:
        raise _changed(file.path, file)
    rows = _parquet_rows(file.path) if file.path.suffix == ".parquet" else _json_rows(file.path)
    for text, origin, split in rows:
        yield CleanDocument(text, file.source, origin, split)


def _parquet_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as opened:
        for batch in opened.iter_batches(batch_size=_BATCH_ROWS, columns=["text", "origin", "split"]):
            yield from zip(*(batch.column(name).to_pylist() for name in ("text", "origin", "split")), strict=True)


def _json_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    with open_binary(path) as opened:
        for line in opened:
            row = json.loads(line)
            yield row["text"], row["origin"], row["split"]


def _text(raw: bytes, file: CleanFile) -> str:
    try:
        return unescape(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        # The offset within the file is found by reading once more: this is the last thing done with it.
        with open_binary(file.path) as opened:
            offset = opened.read().find(raw) + error.start
        raise not_utf8(file.path, offset=offset, byte=raw[error.start]) from error


class _Hashing:
    """Hashes what is read through it: reading a shard also tells whether it is what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = sha256()
        self.size = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        self.size += len(data)
        return data


def _changed(path: Path, file: CleanFile) -> ArtifactError:
    return ArtifactError(f"`{path}` has changed since it was written", hint=_remake(file))


def _remake(file: CleanFile) -> str:
    return f"run `{file.command} --force`"


def _not_fitting(file: CleanFile) -> ArtifactError:
    return ArtifactError(
        f"`{file.path}` and its document lines do not hold the same documents",
        hint=_remake(file),
    )


@dataclass(frozen=True)
class _Line:
    origin: str
    split: str


def _read_lines(file: CleanFile) -> Iterator[_Line]:
    if file.shard is None:
        return
    path = file.path.with_suffix(".jsonl")
    digest = sha256()
    with path.open("rb") as lines:
        for line in lines:
            digest.update(line)
            try:
                values = json.loads(line)
                yield _Line(origin=values["origin"], split=values["split"])
            except (ValueError, KeyError, TypeError) as error:
                raise _changed(path, file) from error
    if digest.hexdigest() != file.shard.lines_sha256:
        raise _changed(path, file)
