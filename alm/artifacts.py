"""The metadata of every artifact: what it is, what it was made from, and whether it is whole.

Metadata is written last, so an artifact whose metadata is there is complete. Each schema holds the
format and its version, the configuration, the SHA-256 of every input and of every payload file.
Paths inside are relative to the folder of the metadata.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from alm import __version__, files
from alm.config.base import Config
from alm.errors import ArtifactError

FORMAT_VERSION = 1
SHORT_HASH = 8

Values = dict[str, Any]  # Any: the JSON of a configuration
AskedValue = int | str | None


class FileRecord(Config):
    """A file by name, size and hash."""

    path: str
    bytes: int
    sha256: str


def record(path: Path, *, relative_to: Path, sha256: str | None = None) -> FileRecord:
    """The record of `path` as seen from the folder `relative_to`; hashes it unless `sha256` is known."""
    digest = sha256 or files.sha256(path)
    return FileRecord(path=relative(path, relative_to), bytes=path.stat().st_size, sha256=digest)


def relative(path: Path, folder: Path) -> str:
    """`path` as seen from `folder`, with forward slashes."""
    try:
        return as_text(Path(os.path.relpath(path, folder)))
    except ValueError:  # Windows: another drive has no relative path
        return as_text(path.resolve())


def as_text(path: Path) -> str:
    r"""`path` with forward slashes, as text that JSON can hold: a byte that is not UTF-8 as `\xNN`.

    >>> as_text(Path("texts/caf\udce9.txt"))
    'texts/caf\\xe9.txt'
    """
    return readable_text(path.as_posix())


def readable_text(given: str) -> str:
    r"""`given`, from the operating system or from a file, without lone surrogates: a byte of a name as `\xNN`."""
    if given.isascii():
        return given
    try:
        return given.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # other surrogates than those of bytes
        return given.encode("utf-8", "backslashreplace").decode()


class Metadata(Config):
    """What all metadata holds. Keys that a later `alm` adds are skipped by an earlier one.

    `command` makes the artifact again, run from the same folder.
    """

    model_config = ConfigDict(extra="ignore")

    format: str
    format_version: int = FORMAT_VERSION
    alm_version: str = __version__
    command: str = ""
    config: Values
    inputs: tuple[FileRecord, ...]

    def payload(self) -> list[FileRecord]:
        """The files this metadata promises. A size of -1 is one that only the hash tells."""
        return []


class CleanShard(Config):
    """One `<source>-NNNNN.txt` with its document lines `<source>-NNNNN.jsonl`; other formats hold the lines too."""

    file: str
    documents: int
    bytes: int
    sha256: str
    lines_file: str | None = None
    lines_sha256: str | None = None


class Tally(Config):
    """Documents or bytes of one source. input = kept + dropped; output = kept + sum of changed."""

    input: int
    kept: int
    dropped: dict[str, int]
    changed: dict[str, int]
    output: int


class Held(Config):
    """What is held out where hashes hold out nothing: the cluster of `digest`, or the end of its oldest document.

    `cut` is the share of that document, None for all of the cluster. Chosen once and kept when the source grows.
    """

    digest: str = Field(pattern="^[0-9a-f]{64}$")
    cut: float | None = Field(default=None, gt=0, lt=1)


class SourceMetadata(Metadata):
    """`data/clean/<source>.json`: one source of a clean corpus."""

    format: Literal["alm-clean"] = "alm-clean"
    source: str
    kind: str
    revision: str | None
    licence: str | None
    documents: Tally
    bytes: Tally
    validation_documents: int
    held: Held | None = None
    shards: tuple[CleanShard, ...]

    def payload(self) -> list[FileRecord]:
        texts = [FileRecord(path=s.file, bytes=s.bytes, sha256=s.sha256) for s in self.shards]
        lines = [(shard.lines_file, shard.lines_sha256) for shard in self.shards]
        return texts + [FileRecord(path=path, bytes=-1, sha256=digest) for path, digest in lines if path and digest]


class TokenizerMetadata(Metadata):
    """`tokenizer.meta.json`: how `tokenizer.json` beside it was made."""

    format: Literal["alm-tokenizer"] = "alm-tokenizer"
    kind: str
    vocab_size: int
    merges: int
    documents: int
    bytes: int
    bytes_per_id: tuple[int, ...]
    file: FileRecord

    def payload(self) -> list[FileRecord]:
        return [self.file]


class PackedShard(Config):
    """One shard: tokens of one split of one source. `sequences` counts the rows that start in it.

    The last `padding` of its tokens are none of the text.
    """

    file: str
    split: str
    source: str
    sequences: int
    tokens: int
    sha256: str
    index_file: str
    index_sha256: str
    padding: int = 0


class PackedSource(Config):
    """Counts of one source in one split. tokens = stored_tokens + tail_tokens."""

    documents: int
    bytes: int
    tokens: int
    stored_tokens: int
    tail_tokens: int


class PackMetadata(Metadata):
    """`data/packed/metadata.json`. input = total - padding + tail; `target_tokens` are those that an epoch predicts."""

    format: Literal["alm-packed"] = "alm-packed"
    seq_len: int
    sequences_per_shard: int
    dtype: Literal["uint16", "uint32"]
    vocab_size: int
    mode: Literal["concat", "bestfit"]
    end_of_text_id: int
    tokenizer_sha256: str
    tokenizer_file: str
    sources: dict[str, dict[str, PackedSource]]
    shards: tuple[PackedShard, ...]
    input_tokens: int
    total_tokens: int
    tail_tokens: int
    padding_tokens: int = 0
    target_tokens: dict[str, int] = Field(default_factory=dict)

    def stride(self, split: str) -> int:
        """From the start of a row to that of the next: held-out text is always joined."""
        return self.seq_len + (self.mode == "bestfit" and split == "train")

    def sequences(self, split: str) -> int:
        """Rows of `split`."""
        return sum(shard.sequences for shard in self.shards if shard.split == split)

    def tokens(self, split: str) -> int:
        """Stored tokens of `split`."""
        return sum(shard.tokens for shard in self.shards if shard.split == split)

    def payload(self) -> list[FileRecord]:
        width = {"uint16": 2, "uint32": 4}[self.dtype]
        bins = [FileRecord(path=s.file, bytes=s.tokens * width, sha256=s.sha256) for s in self.shards]
        indexes = [FileRecord(path=s.index_file, bytes=-1, sha256=s.index_sha256) for s in self.shards]
        tokenizer = FileRecord(path=self.tokenizer_file, bytes=-1, sha256=self.tokenizer_sha256)
        return [*bins, *indexes, tokenizer]


class CheckpointMetadata(Config):
    """`ckpt-stepXXXXXX.json`: the promise that the `.pt` beside it is whole.

    `bits_per_byte` is the score of the held-out text after this step, where it was scored then.
    """

    model_config = ConfigDict(extra="ignore")

    format: Literal["alm-checkpoint"] = "alm-checkpoint"
    format_version: int = FORMAT_VERSION
    file: str
    step: int
    bytes: int
    sha256: str
    bits_per_byte: float | None = None


class RunResult(Config):
    """How a finished run ended. `seconds` is the time spent in steps, over all its sittings.

    `bits_per_byte_margin` is half the width of a 95% interval around `bits_per_byte`.
    """

    step: int
    training_tokens: int
    validation_loss: float | None
    bits_per_byte: float | None
    bits_per_byte_margin: float | None = None
    seconds: float


class RunMetadata(Metadata):
    """`runs/<name>/run.json`: lineage and machine; `result` is there once the run is finished.

    `initial_weights` is the checkpoint that it began from, if one was named.
    `asked` has what was asked for, by dotted key, where a budget or a full memory decided otherwise.
    """

    format: Literal["alm-run"] = "alm-run"
    data: str
    data_sha256: str
    tokenizer_sha256: str
    parameters: int
    environment: dict[str, str]
    asked: dict[str, AskedValue] = Field(default_factory=dict)
    initial_weights: FileRecord | None = None
    result: RunResult | None = None

    def payload(self) -> list[FileRecord]:
        # A run promises its tokenizer; its checkpoints carry their own metadata.
        return [FileRecord(path="tokenizer.json", bytes=-1, sha256=self.tokenizer_sha256)]


class Comparison(Config):
    """What another tool makes of an export, beside this alm.

    `difference` is the worst that was found; above `bar` the export is refused. Without a `bar` it is only told.
    """

    what: str
    tool: str
    difference: float
    bar: float | None = None
    detail: str = ""

    @property
    def is_close(self) -> bool:
        """Whether the difference is one that may be."""
        return self.bar is None or self.difference <= self.bar


class ExportMetadata(Metadata):
    """`export.json`: a model in the files of another tool. `comparisons` is absent where that tool was not there."""

    format: Literal["alm-export"] = "alm-export"
    to: str
    name: str
    step: int
    parameters: int
    tokenizer_sha256: str
    comparisons: tuple[Comparison, ...] | None = None
    files: tuple[FileRecord, ...]

    def payload(self) -> list[FileRecord]:
        return list(self.files)


class ImportMetadata(Metadata):
    """`import.json`: a model of another tool as a checkpoint of step 0. `comparisons` as in `ExportMetadata`.

    `not_taken` names what the folder said of sampling and chats, which a checkpoint does not hold.
    """

    format: Literal["alm-import"] = "alm-import"
    kind: str
    architecture: str
    parameters: int
    dtype: str
    tokenizer_sha256: str
    not_taken: tuple[str, ...] = ()
    comparisons: tuple[Comparison, ...] | None = None
    files: tuple[FileRecord, ...]

    def payload(self) -> list[FileRecord]:
        return list(self.files)


AnyMetadata = TypeVar("AnyMetadata", bound=Config)


def read(path: Path, schema: type[AnyMetadata], *, hint: str) -> AnyMetadata:
    """The metadata in `path`; `ArtifactError` with `hint` when it is missing, damaged or of another format."""
    files.ensure_published(path.parent)
    if not path.is_file():
        raise ArtifactError(f"`{path}` does not exist", hint=hint)
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise ArtifactError(f"`{path}` is damaged: {error}", hint=hint) from error
    if not isinstance(values, dict):
        raise ArtifactError(f"`{path}` is no metadata of `alm`", hint=hint)
    version = values.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ArtifactError(
            f"`{path}` has format version {version}, this alm {__version__} reads {FORMAT_VERSION}",
            hint="run `pip install --upgrade a-lm`",
        )
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"`{path}`: `{place}`: {first['msg']}", hint=hint) from error


def write(path: Path, metadata: Config) -> None:
    """Write `metadata` as the promise that the artifact is whole: call it last."""
    files.write_json(path, metadata.model_dump(mode="json"))


def current(
    path: Path, schema: type[AnyMetadata], *, config: Values, inputs: Iterable[FileRecord], force: bool, redo: str
) -> AnyMetadata | None:
    """The metadata in `path` if it was made with `config` from `inputs`: the artifact is up to date.

    None when there is nothing or `force` is given. An artifact made otherwise is refused with what
    differs and `redo`, the command that makes it anew.
    """
    files.ensure_published(path.parent)
    if force or not path.is_file():
        return None
    found = read(path, schema, hint=f"run `{redo} --force` to make it anew")
    assert isinstance(found, Metadata)
    different = [*_input_differences(found.inputs, inputs), *_config_differences(found.config, config)]
    if different:
        raise ArtifactError(
            "\n  ".join([f"`{path}` was made from other inputs", *different]),
            hint=f"run `{redo} --force` to make it anew",
        )
    faults = absent(path.parent, found.payload())
    if faults:
        raise ArtifactError(f"`{path}` is no longer true: {faults[0]}", hint=f"run `{redo} --force` to make it anew")
    return found


def differences(found: Metadata, *, config: Values, inputs: Iterable[FileRecord]) -> list[str]:
    """How `config` and `inputs` differ from those of `found`, a line each; inputs that are new are no difference."""
    known = {file.path for file in found.inputs}
    shared = [file for file in inputs if file.path in known]
    return [*_input_differences(found.inputs, shared), *_config_differences(found.config, config)]


def _input_differences(found: Iterable[FileRecord], wanted: Iterable[FileRecord]) -> list[str]:
    before = {file.path: file.sha256 for file in found}
    now = {file.path: file.sha256 for file in wanted}
    changed = [path for path in sorted(before.keys() | now.keys()) if before.get(path) != now.get(path)]
    lines = [f"{path}  {_short(before.get(path))} -> {_short(now.get(path))}" for path in changed[:5]]
    return [*lines, f"and {len(changed) - 5} more files"] if len(changed) > 5 else lines


def _short(sha256: str | None) -> str:
    return sha256[:SHORT_HASH] if sha256 else "absent"


def _config_differences(found: Values, wanted: Values) -> list[str]:
    before, now = dict(flat(found)), dict(flat(wanted))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    return [f"{key}  {before.get(key)} -> {now.get(key)}" for key in changed]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:  # Any: JSON
    """The leaves of nested `values` with their dotted keys."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def damaged(folder: Path, payload: Iterable[FileRecord]) -> list[str]:
    """What is wrong with the promised files, one sentence each; empty when all are whole."""
    return [fault for file in payload if (fault := _fault(folder / file.path, file))]


def absent(folder: Path, payload: Iterable[FileRecord]) -> list[str]:
    """The promised files that are missing or of another size: what can be told without reading them."""
    return [fault for file in payload if (fault := _size_fault(folder / file.path, file))]


def _size_fault(path: Path, promised: FileRecord) -> str | None:
    if not path.is_file():
        return f"`{path}` is missing"
    size = path.stat().st_size
    if promised.bytes not in (-1, size):
        return f"`{path}` has {size:,} bytes, {promised.bytes:,} were written"
    return None


def _fault(path: Path, promised: FileRecord) -> str | None:
    if fault := _size_fault(path, promised):
        return fault
    if files.sha256(path) != promised.sha256:
        return f"`{path}` has changed since it was written"
    return None
