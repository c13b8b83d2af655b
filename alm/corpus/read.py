"""Reading clean text back: entire corpora, single shards, and plain text files of any origin.

Later stages read text through this module. A file that `alm corpus prepare` wrote comes with its document lines;
a foreign `.txt` is one document, or several if it has marks, and has no split yet.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from alm import artifacts
from alm.artifacts import CleanShard, FileRecord, HeldOut, SourceMetadata
from alm.config.commands import command_of
from alm.corpus import paths
from alm.corpus.config import values_for_paths
from alm.corpus.conversations import Conversation, from_rows
from alm.corpus.formats._encoding import AUTO, is_plain_utf8, open_utf8
from alm.corpus.normalize import with_newlines
from alm.corpus.paths import from_text
from alm.corpus.records import ends_of, read_records, unescape
from alm.corpus.report import HTML_NAME, JSON_NAME
from alm.corpus.split import SPLITS
from alm.errors import AlmError, ArtifactError, InputError, shell
from alm.files import (
    ensure_published,
    not_utf8,
    open_binary,
    parse_json,
    read_json,
    readable,
    regular,
    suffix,
)
from alm.files import sha256 as sha256_of
from alm.files.publish import JOURNAL_NAME

STATE_FOLDER = ".alm"  # holds one folder for each source, with the state that is kept between commands
_SHARD = re.compile(r"(?P<source>.+)-\d{5}\.(?:txt|jsonl\.zst|parquet)", re.ASCII | re.DOTALL)
_LINES = re.compile(r"(?P<source>.+)-\d{5}\.jsonl", re.ASCII | re.DOTALL)
_TABLES = ("jsonl.zst", "parquet")  # formats whose rows hold the document lines
_SUFFIXES = frozenset({".txt"})
_FORMAT = b'"alm-clean"'
_HEAD_BYTES = 4096  # metadata begins with its format
_LINE_KEYS = {"id", "sha256", "cluster", "split", "origin"}
_MOST_LINE_BYTES = 1 << 20
_FIRST_LINES = 8
_DIGEST = re.compile("[0-9a-f]{64}")
# A document line as it is written, unless its origin holds an escape.
_LINE = re.compile(
    rb'{"id": "[0-9a-f]{16}", "sha256": "[0-9a-f]{64}", "cluster": "[0-9a-f]{64}", "split": "(train|validation)", '
    rb'"origin": "([^"\\\x00-\x1f]*)"(?:, "messages": (\[.*\]))?}\n'
)
_LINE_BEGIN = re.compile(rb'{"id": "[0-9a-f]{16}", "sha256": "[0-9a-f]{64}", "cluster": "[0-9a-f]{64}", "split": "')
_FINISHED = "*.final.json"  # in the folder of a state, once the text of a unit is finished
_OF_MANY = re.compile(r"-\d{5}-of$", re.ASCII)  # `train-00000-of-00001.parquet`, a common name for data set files
_BATCH_ROWS = 1000
_TABLE_COLUMNS = ("text", "origin", "split", "messages")


@dataclass(frozen=True)
class CleanFile:
    """A text file to read. `shard` is its entry in the metadata, None for foreign text."""

    path: Path
    source: str
    shard: CleanShard | None
    command: str = ""
    held_out: HeldOut | None = None  # of all shards of the source
    has_messages: bool = False  # whether all documents of the source are conversations

    @property
    def lines_path(self) -> Path | None:
        """The document lines of a text that metadata lists."""
        name = None if self.shard is None else self.shard.lines_file
        return None if name is None else self.path.with_name(name)

    @property
    def paths(self) -> list[Path]:
        """The file, and its document lines if it has a file of them."""
        return [self.path] if self.lines_path is None else [self.path, self.lines_path]

    def record(self, *, relative_to: Path) -> FileRecord:
        """Return the file with its hash: the metadata's if there is one, so a corpus is not read twice."""
        known = self.shard.sha256 if self.shard else None
        return artifacts.record(self.path, relative_to=relative_to, sha256=known)

    def records(self, *, relative_to: Path) -> list[FileRecord]:
        """Return the file and, if it has any, its document lines: they say which documents are held out."""
        found = [self.record(relative_to=relative_to)]
        if self.shard is not None and self.lines_path is not None:
            with readable(self.lines_path):
                known = self.shard.lines_sha256
                found.append(artifacts.record(self.lines_path, relative_to=relative_to, sha256=known))
        return found


@dataclass(frozen=True)
class CleanDocument:
    """A document read back. `split` is None for foreign text.

    `messages` is the JSON of its messages, or their list; None for a plain document.
    """

    text: str
    source: str
    origin: str
    split: str | None
    messages: bytes | list[Any] | None = None  # Any: JSON

    def conversation(self) -> Conversation | None:
        """Return its messages. Raises `ArtifactError` if they are not what was written."""
        if self.messages is None:
            return None
        try:
            return from_rows(parse_json(self.messages) if isinstance(self.messages, bytes) else self.messages)
        except ValueError as error:
            raise ArtifactError(
                f"`{self.origin}` of source `{self.source}`: its messages are not as they were written: {error}",
                hint="run `alm corpus prepare` with `--force` to write them again",
            ) from error


def claims(metadata: Path) -> bool:
    """Whether `metadata`, any .json file, declares the format of a clean corpus."""
    try:
        with regular(metadata).open("rb") as file:
            return _FORMAT in file.read(_HEAD_BYTES)
    except (AlmError, OSError, ValueError):
        return False


def has_document_lines(path: Path) -> bool:
    """Whether document lines of ours lie beside the text file `path`. Reads the first few, as one may be damaged."""
    lines = path.with_suffix(".jsonl")
    if not lines.is_file():
        return False
    try:
        with lines.open("rb") as file:
            return any(_is_document_line(file.readline(_MOST_LINE_BYTES)) for _ in range(_FIRST_LINES))
    except OSError:
        return False


def _is_document_line(line: bytes) -> bool:
    if len(line) == _MOST_LINE_BYTES:  # a conversation, of which only the beginning was read
        return _LINE_BEGIN.match(line) is not None
    try:
        found = parse_json(line)
    except ValueError:
        return False
    return (
        isinstance(found, dict)
        and found.keys() >= _LINE_KEYS
        and "text" not in found
        and all(isinstance(found[key], str) for key in _LINE_KEYS)
        and _DIGEST.fullmatch(found["sha256"]) is not None
        and found["split"] in SPLITS
    )


def _was_begun(metadata: Path) -> bool:
    """Whether the state beside `metadata` shows that its source was prepared here. A lock alone does not."""
    state = metadata.parent / STATE_FOLDER / metadata.stem
    return (state / "plan.json").is_file() or next(state.glob(_FINISHED), None) is not None


def has_shards(metadata: Path) -> bool:
    """Whether `metadata`, any .json file, belongs to a clean corpus, by its content or by the files beside it."""
    texts = metadata.parent.glob(f"{glob.escape(metadata.stem)}-{'[0-9]' * 5}.txt")
    return claims(metadata) or any(has_document_lines(path) for path in texts)


def _tables(folder: Path) -> list[Path]:
    """Return the shards in and below `folder` that are tables, recognised by name."""
    named = (path for form in _TABLES for path in folder.rglob(f"*-{'[0-9]' * 5}.{form}"))
    return sorted(path for path in named if _is_visible(path, folder) and path.is_file() and not _is_of_many(path))


def _is_of_many(path: Path) -> bool:
    match = _SHARD.fullmatch(path.name)
    return match is None or _OF_MANY.search(match["source"]) is not None


def _is_visible(path: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(folder).parts)


def is_text(path: Path) -> bool:
    """Whether `path` may hold text, rather than a file that `alm corpus prepare` wrote beside text."""
    if path.name in (JSON_NAME, HTML_NAME):
        return False
    if path.suffix == ".jsonl":
        match = _LINES.fullmatch(path.name)
        return not (match and _is_claimed(path, match)) and not has_document_lines(path)
    return path.suffix != ".json" or not has_shards(path)


def _is_claimed(path: Path, match: re.Match[str]) -> bool:
    """Whether `path` belongs to a corpus by its name, according to the metadata beside it or else to the state."""
    metadata = _metadata_path(path, match)
    return claims(metadata) or _was_begun(metadata)


def shard_source(path: Path) -> str | None:
    """Return the source whose shard `path` is, by its name and the files beside it; None for any other file."""
    match = _SHARD.fullmatch(path.name)
    return match["source"] if match and _is_claimed(path, match) else None


def _metadata_path(path: Path, match: re.Match[str]) -> Path:
    return path.with_name(f"{match['source']}.json")


def find(given: Iterable[str | Path]) -> list[CleanFile]:
    """Return the text files that paths, folders and globs stand for, sorted, each source's shards in order.

    A folder of clean text stands for the files that its metadata lists, and for foreign .txt files beside them.
    Every file that metadata lists must exist: its document lines say which documents are held out.
    """
    finder = _Finder()
    expanded = {path for one in given for path in finder.expanded(str(one))}
    found = [finder.file(path) for path in sorted(expanded) if is_text(path)]
    if not found:
        raise InputError("no text files are named", hint="run `alm corpus prepare` first")
    return sorted(found, key=lambda file: (file.source, file.path.as_posix()))


class _Finder:
    """Finds text files; reads the metadata of each source once."""

    def __init__(self) -> None:
        self._metadata: dict[Path, tuple[SourceMetadata, dict[str, CleanShard]]] = {}
        self._complete: set[Path] = set()

    def expanded(self, given: str) -> list[Path]:
        """Return the files that one path stands for."""
        folder = from_text(given).expanduser()
        if not folder.is_dir():
            _complete(folder.parent, given)
            return paths.expand([given], suffixes=_SUFFIXES)
        ensure_published(folder)
        listed = [path for path in folder.rglob("*.json") if not path.name.startswith((".", "_"))]
        for path in listed:
            if _is_visible(path, folder) and claims(path):
                self._shards(path)  # checks that the files it lists exist
        for state in sorted({path.parent for path in folder.rglob(f"{STATE_FOLDER}/*/{_FINISHED}")}):
            metadata_path = state.parent.with_name(f"{state.name}.json")
            if _is_visible(metadata_path, folder):
                if not metadata_path.is_file():
                    raise _unfinished(state, metadata_path)
                self._shards(metadata_path)
        tables = _tables(folder)
        # A folder without any .txt file is an error, unless it holds clean text in tables.
        has_text = not tables or any(folder.rglob("*.txt"))
        return tables + (paths.expand([given], suffixes=_SUFFIXES) if has_text else [])

    def file(self, path: Path) -> CleanFile:
        """Return the file with its entry in the metadata, if it has one."""
        match = _SHARD.fullmatch(path.name)
        is_vouched_for = match is not None and _is_claimed(path, match)
        if match is None or not (is_vouched_for or path.suffix != ".txt" or has_document_lines(path)):
            self._refuse_renamed(path)
            return CleanFile(path, _foreign_name(path), None)
        name, metadata_path = match["source"], _metadata_path(path, match)
        if not metadata_path.is_file():
            raise _unfinished(path, metadata_path)
        metadata, shards = self._shards(metadata_path)
        if path.name in shards:
            again = prepare_again(metadata_path, metadata)
            has_messages = metadata.conversations == metadata.documents.output
            return CleanFile(path, name, shards[path.name], again, metadata.held_out, has_messages)
        aside = path.with_name(f"not-of-{path.name}")
        raise ArtifactError(
            f"`{path}` is not among the shards of `{metadata_path}`",
            hint=f"if it is other text, rename it: `{shell('mv', '-n', path, aside)}`",
        )

    def _shards(self, path: Path) -> tuple[SourceMetadata, dict[str, CleanShard]]:
        """Return the metadata at `path` and its shards by name; all of them exist."""
        if path not in self._metadata:
            metadata = artifacts.read(path, SourceMetadata, hint=f"run `{prepare_again(path)} --force`")
            check_names(path, metadata)
            faults = artifacts.absent(path.parent, metadata.payload())
            if faults:
                raise ArtifactError(
                    f"`{path}` no longer matches its files: {faults[0]}",
                    hint=self._way_back(path, metadata) or f"run `{prepare_again(path, metadata)} --force`",
                )
            self._metadata[path] = metadata, {shard.file: shard for shard in metadata.shards}
        return self._metadata[path]

    def _way_back(self, path: Path, metadata: SourceMetadata) -> str | None:
        """Return a hint that undoes the renaming of a shard, or None."""
        lost = [shard for shard in metadata.shards if not path.with_name(shard.file).exists()]
        names = {shard.file for shard in metadata.shards}
        for other in sorted(path.parent.glob("*.txt")) if lost else ():
            for shard in lost if other.name not in names and other.is_file() else ():
                if other.stat().st_size == shard.bytes and sha256_of(other) == shard.sha256:
                    return f"run `{shell('mv', '-n', other, path.with_name(shard.file))}`: it is the same file"
        return None

    def _refuse_renamed(self, path: Path) -> None:
        """Refuse a renamed shard: its held-out documents would be trained on."""
        if has_document_lines(path):
            lines = path.with_suffix(".jsonl")
            raise ArtifactError(
                f"`{path}` has document lines beside it, but no corpus lists it: its held-out documents are unknown",
                hint="rename it and its document lines as the metadata of their source lists them, or read it as "
                f"foreign text after `{shell('mv', '-n', lines, f'{lines}.aside')}`",
            )
        if path.parent not in self._complete:
            for metadata_path in sorted(path.parent.glob("*.json")):
                if claims(metadata_path):
                    self._shards(metadata_path)  # refuses if a shard is missing: it may be this file
            self._complete.add(path.parent)


def check_names(path: Path, metadata: SourceMetadata) -> None:
    """Refuse metadata at `path` that lists anything but shards of its source, each with its document lines."""
    names = [shard.file for shard in metadata.shards]
    wrong = [shard.file for shard in metadata.shards if not _is_named_after(shard, path.stem)]
    if wrong or metadata.source != path.stem or len(set(names)) < len(names):
        raise ArtifactError(
            f"`{path}` is damaged: `{wrong[0] if wrong else metadata.source}` is not a shard of source `{path.stem}`"
            if wrong or metadata.source == path.stem
            else f"`{path}` is damaged: it names its source `{metadata.source}`",
            hint=f"run `{prepare_again(path)} --force`",
        )


def _is_named_after(shard: CleanShard, source: str) -> bool:
    match = _SHARD.fullmatch(shard.file)
    if match is None or match["source"] != source:
        return False
    if not shard.file.endswith(".txt"):
        return shard.lines_file is None
    return shard.lines_file == f"{shard.file[:-4]}.jsonl" and shard.lines_sha256 is not None


def _complete(folder: Path, given: str) -> None:
    """Complete a publication that a killed process began in the folder of a named file."""
    if (folder / JOURNAL_NAME).is_file():
        ensure_published(folder)
        raise ArtifactError(
            f"`{folder}` was incomplete when `{given}` was looked up there; it is complete now",
            hint="run the same command again",
        )


def _unfinished(path: Path, metadata_path: Path) -> ArtifactError:
    hint = f"run `{prepare_again(metadata_path)}` to finish it"
    if path.is_file() and not _was_begun(metadata_path):
        hint += f"; if it is other text: `{shell('mv', '-n', path, path.with_name(f'not-of-{path.name}.aside'))}`"
    return ArtifactError(
        f"`{path}` is part of an unfinished corpus: `{metadata_path}` does not exist",
        hint=hint,
    )


def prepare_again(metadata_path: Path, metadata: SourceMetadata | None = None) -> str:
    """Return the command that prepares a source again: the one in `metadata`, or one that reads the same files.

    The metadata and the plan may come from a stranger, so everything from them is quoted for the shell.
    """
    name, out = metadata_path.stem, metadata_path.parent
    read = _words_that_read(name, _config_of(metadata_path) if metadata is None else metadata.config)
    again = shell("alm", "corpus", "prepare", *read, "--only", name, "--out", out)
    if metadata is None:
        return again
    return command_of(metadata.command, stage=("alm", "corpus", "prepare"), out=out, only=name, otherwise=again)


def _config_of(metadata_path: Path) -> artifacts.Values:
    """Return the configuration of the source, from the remains of its metadata or from its plan."""
    for path in (metadata_path, metadata_path.parent / STATE_FOLDER / metadata_path.stem / "plan.json"):
        try:
            config = read_json(path)["config"]
        except (AlmError, OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(config, dict):
            return config
    return {}


def _words_that_read(name: str, config: artifacts.Values) -> list[str]:
    """Return the arguments with which `alm corpus prepare` reads the files of `config` as source `name`."""
    source = config.get("source")
    if not isinstance(source, dict) or source.get("kind") != "files":
        return []
    given = source.get("paths")
    if not isinstance(given, list | tuple) or not given or not all(isinstance(path, str) for path in given):
        return []
    try:
        is_named_so = len(given) == 1 and [*values_for_paths(given)["sources"]] == [name]
    except AlmError:
        is_named_so = False
    if is_named_so and not given[0].startswith("-"):
        return [given[0]]
    return ["--set", f"sources.{name}.kind=files", "--set", f"sources.{name}.paths={json.dumps(given)}"]


def _foreign_name(path: Path) -> str:
    return path.name.removesuffix(path.suffix) if suffix(path) == path.suffix.lower() else Path(path.stem).stem


def read_documents(files: Sequence[CleanFile]) -> Iterator[CleanDocument]:
    """Yield every document of `files`, exactly as it was cleaned.

    Raises `ArtifactError` if a shard and its document lines do not match, and `InputError` for text that is not UTF-8.
    """
    for file in files:
        yield from _read_file(file)


def read_text(path: Path) -> str:
    """Return the text of a file as corpora read it: unpacked, in the encoding of its byte order mark, else UTF-8."""
    with open_utf8(path, AUTO) as (file, _):
        return with_newlines(file.read().decode("utf-8"))


def _read_file(file: CleanFile) -> Iterator[CleanDocument]:
    if file.shard is not None and file.path.suffix != ".txt":
        yield from _read_table(file, file.shard)
        return
    lines = _read_lines(file)
    number = 0
    with _opened(file) as (opened, _):
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
            yield CleanDocument(text, file.source, line.origin, line.split, line.messages)
    if file.shard is not None:
        if hashed.digest.hexdigest() != file.shard.sha256:
            raise _changed(file.path, file)
        if number != file.shard.documents or next(lines, None) is not None:
            raise _not_fitting(file)


@contextmanager
def _opened(file: CleanFile) -> Iterator[tuple[BinaryIO, int]]:
    """Open a text file, and yield it with the offset at which its text begins: foreign text as corpora read it."""
    if file.shard is None:
        with open_utf8(file.path, AUTO) as (opened, begin):
            yield opened, begin
    else:
        with open_binary(file.path) as opened:
            yield opened, 0


@dataclass(frozen=True)
class CleanPart:
    """Some documents of a file: the bytes `start` to `end` of a text, with document lines from byte `lines_start` on.

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
        """Return the position of the part in its file."""
        return self.start, self.end, self.first


def parts_of(file: CleanFile, *, part_bytes: int) -> Iterator[CleanPart]:
    """Cut `file` between documents into parts of about `part_bytes`, for `read_part`.

    The file is read once, and its hash checked, before the first part is yielded: a part alone cannot be checked.
    """
    if file.path.suffix != ".txt" or (file.shard is None and not is_plain_utf8(file.path, AUTO)):
        yield CleanPart(file)
        return
    documents = 0
    with _opened(file) as (opened, begin):
        cuts = [(begin, 0)]
        hashed = _Hashing(opened)
        for documents, end in enumerate(ends_of(hashed), start=1):
            if begin + end - cuts[-1][0] >= part_bytes:
                cuts.append((begin + end, documents))
        size = begin + hashed.size
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


def _line_offsets(file: CleanFile, firsts: Sequence[int]) -> list[int]:
    """Return the byte offsets of the document lines with these numbers; check the hash and the number of lines."""
    assert file.shard is not None
    digest = sha256()
    wanted = set(firsts)
    found: dict[int, int] = {}
    offset = number = 0
    path = file.path.with_suffix(".jsonl")
    with readable(path), path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if number - 1 in wanted:
                found[number - 1] = offset
            digest.update(line)
            offset += len(line)
    found[number] = offset
    if digest.hexdigest() != file.shard.lines_sha256:
        raise _changed(path, file)
    if number != file.shard.documents:
        raise _not_fitting(file)
    return [found[first] for first in firsts]


def read_part(part: CleanPart) -> Iterator[CleanDocument]:
    """Yield the documents of a part, as `read_documents` does."""
    file = part.file
    if part.end is None or suffix(file.path) != file.path.suffix.lower():
        yield from _read_file(file)
        return
    with ExitStack() as stack:
        stack.enter_context(readable(file.path))
        opened = stack.enter_context(file.path.open("rb"))
        opened.seek(part.start)
        lines, lines_path = None, file.path.with_suffix(".jsonl")
        if file.shard is not None:
            stack.enter_context(readable(lines_path))
            lines = stack.enter_context(lines_path.open("rb"))
            lines.seek(part.lines_start)
        for number, raw in enumerate(read_records(_Limited(opened, part.end - part.start)), start=part.first + 1):
            text = _text(raw, file)
            if lines is not None:
                line = _parsed(lines.readline(), lines_path, file)
                yield CleanDocument(text, file.source, line.origin, line.split, line.messages)
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
    number = 0
    rows = _parquet_rows(file) if file.path.suffix == ".parquet" else _json_rows(file)
    for text, origin, split, messages in rows:
        number += 1
        if not isinstance(text, str) or not isinstance(origin, str) or split not in SPLITS:
            raise _no_table(file)
        if not isinstance(messages, list | None):
            raise _no_table(file)
        yield CleanDocument(text, file.source, origin, split, messages)
    if number != shard.documents:
        raise _no_table(file)


def _parquet_rows(file: CleanFile) -> Iterator[tuple[object, object, object, object]]:
    from pyarrow import ArrowException, parquet

    try:
        with readable(file.path), parquet.ParquetFile(file.path) as opened:
            columns = [name for name in _TABLE_COLUMNS if name in opened.schema_arrow.names]
            for batch in opened.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                yield from (tuple(map(row.get, _TABLE_COLUMNS)) for row in batch.to_pylist())
    except (ArrowException, KeyError, UnicodeDecodeError) as error:
        raise _no_table(file) from error


def _json_rows(file: CleanFile) -> Iterator[tuple[object, object, object, object]]:
    with open_binary(file.path) as opened:
        for line in opened:
            try:
                row = parse_json(line)
                yield row["text"], row["origin"], row["split"], row.get("messages")
            except (ValueError, KeyError, TypeError) as error:
                raise _no_table(file) from error


def _no_table(file: CleanFile) -> ArtifactError:
    return ArtifactError(
        f"`{file.path}` does not hold the rows that `alm corpus prepare` wrote, or not as many", hint=_remake(file)
    )


def _text(raw: bytes, file: CleanFile) -> str:
    try:
        text = unescape(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        # Find the offset by reading the file again. That is slow, but only happens before the error ends the command.
        with open_binary(file.path) as opened:
            offset = opened.read().find(raw) + error.start
        raise not_utf8(file.path, offset=offset, byte=raw[error.start]) from error
    return with_newlines(text) if file.shard is None else text


class _Hashing:
    """Hashes the bytes that are read through it, so that reading a shard also checks it."""

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
    messages: bytes | list[Any] | None


def _read_lines(file: CleanFile) -> Iterator[_Line]:
    if file.shard is None:
        return
    path = file.path.with_suffix(".jsonl")
    digest = sha256()
    with readable(path), path.open("rb") as lines:
        for line in lines:
            digest.update(line)
            yield _parsed(line, path, file)
    if digest.hexdigest() != file.shard.lines_sha256:
        raise _changed(path, file)


def _parsed(raw: bytes, path: Path, file: CleanFile) -> _Line:
    """Parse a document line of `path`."""
    try:
        if match := _LINE.fullmatch(raw):
            return _Line(origin=match[2].decode(), split=match[1].decode(), messages=match[3])
        values = parse_json(raw)
        origin, split, messages = values["origin"], values["split"], values.get("messages")
    except (ValueError, KeyError, TypeError) as error:
        raise _changed(path, file) from error
    if not isinstance(origin, str) or split not in SPLITS or not isinstance(messages, list | None):
        raise _changed(path, file)
    return _Line(origin=origin, split=split, messages=messages)
