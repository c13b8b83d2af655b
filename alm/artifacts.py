"""Metadata of every artifact: its format, its inputs, and the proof that it is complete.

Metadata is written last, so an artifact that has metadata is complete. Each schema holds the format and its
version, the configuration, and the SHA-256 of every input and of every payload file. Paths are relative to the
folder of the metadata.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from alm import files
from alm.config.base import Config
from alm.errors import ArtifactError, InputError, shell
from alm.version import __version__

FORMAT_VERSION = 1
SHORT_HASH = 8
CHECKSUM = "checksum"  # the key with the hash of all others

Values = dict[str, Any]  # Any: the JSON of a configuration
RequestedValue = int | str | None
Faults = Iterator[tuple[str, str]]  # inconsistencies, each as the field and what is wrong with it

_MOST_VALUES, _VALUE_SHOWN = 10_000, 60
_MARK, _HEAD_BYTES = b'"alm-', 4096  # the start of the format's name, which is the first value
# The end of a record of clean text, as in `alm/corpus/records.py`: a shard has these bytes after each document.
_RECORD_END_BYTES = len("\n<|endoftext|>\n")


def _few(value: Any) -> Any:  # Any: JSON
    # Runs before the values are validated: each of them would be a separate error.
    if isinstance(value, dict | list) and len(value) > _MOST_VALUES:
        raise ValueError(f"has more than {_MOST_VALUES:,} values")
    return value


def _nameable(path: str) -> str:
    if not path or "\0" in path:
        raise ValueError("is not the name of a file")
    return path


Count = Annotated[int, Field(strict=True, ge=0, lt=1 << 53)]
Change = Annotated[int, Field(strict=True, gt=-(1 << 53), lt=1 << 53)]
Measure = Annotated[float, Field(strict=True, ge=0, le=1e30)]
Sha256 = Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{64}$")]
Location = Annotated[str, Field(strict=True, max_length=4096), AfterValidator(_nameable)]
SplitName = Annotated[str, Field(strict=True, pattern="^(train|validation)$")]
Few = BeforeValidator(_few)


class FileRecord(Config):
    """Name, size and hash of a file."""

    path: Location
    bytes: Count
    sha256: Sha256


def _unsized(path: str, sha256: str) -> FileRecord:
    """Return the record of a file whose size is not recorded: -1."""
    return FileRecord.model_construct(path=path, bytes=-1, sha256=sha256)


def record(path: Path, *, relative_to: Path, sha256: str | None = None) -> FileRecord:
    """Return the record of `path` as seen from the folder `relative_to`; hash the file unless `sha256` is given."""
    digest = sha256 or files.sha256(path)
    return FileRecord(path=relative(path, relative_to), bytes=path.stat().st_size, sha256=digest)


def relative(path: Path, folder: Path) -> str:
    """Return `path` as seen from `folder`, with forward slashes."""
    try:
        return as_text(Path(os.path.relpath(path, folder)))
    except ValueError:  # Windows: another drive has no relative path
        return as_text(path.resolve())


def as_text(path: Path) -> str:
    r"""Return `path` with forward slashes, as text that JSON can hold: a byte that is not UTF-8 becomes `\xNN`.

    >>> as_text(Path("texts/caf\udce9.txt"))
    'texts/caf\\xe9.txt'
    """
    return readable_text(path.as_posix())


def readable_text(given: str) -> str:
    r"""Return `given`, from the system or a file, without lone surrogates: a byte of a name becomes `\xNN`."""
    if given.isascii():
        return given
    try:
        return given.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # other surrogates than those of bytes
        return given.encode("utf-8", "backslashreplace").decode()


class Metadata(Config):
    """Fields of all metadata. An earlier `alm` skips keys that a later one adds.

    `command` makes the artifact again when run from the same folder.
    """

    model_config = ConfigDict(extra="ignore")

    format: str
    format_version: Annotated[int, Field(strict=True, ge=1)] = FORMAT_VERSION
    alm_version: str = __version__
    command: str = ""
    config: Values
    inputs: Annotated[tuple[FileRecord, ...], FailFast()]

    def payload(self) -> list[FileRecord]:
        """Return the files this metadata promises. A size of -1 is unknown: only the hash can be checked."""
        return []

    def faults(self) -> Faults:
        """Yield wrong sums and other contradictions between fields."""
        yield from ()


class CleanShard(Config):
    """One `<source>-NNNNN.txt` with its document lines `<source>-NNNNN.jsonl`; other formats include the lines."""

    file: Location
    documents: Count
    bytes: Count
    sha256: Sha256
    lines_file: Location | None = None
    lines_sha256: Sha256 | None = None


class Balance(Config):
    """Documents or bytes of one source. input = kept + dropped; output = kept + sum of changed."""

    input: Count
    kept: Count
    dropped: Annotated[dict[str, Count], Few]
    changed: Annotated[dict[str, Change], Few]
    output: Count

    def faults(self, field: str) -> Faults:
        """Yield the sums of `field` that are wrong."""
        if self.input != self.kept + sum(self.dropped.values()):
            yield f"{field}.input", f"{self.input:,} is not the sum of kept and dropped"
        if self.output != self.kept + sum(self.changed.values()):
            yield f"{field}.output", f"{self.output:,} is not the sum of kept and changed"


class _Extended(Config):
    """Values without `later` keys that have their defaults, so that an `alm` that lacks them reads the rest."""

    later: ClassVar[frozenset[str]]

    @model_serializer(mode="wrap")
    def _without_absent(self, write: SerializerFunctionWrapHandler) -> Values:
        defaults = {key: type(self).model_fields[key].default for key in self.later}
        return {key: value for key, value in write(self).items() if key not in defaults or value != defaults[key]}


class HoldOut(_Extended):
    """How a source whose hashes select too little text is held out. Chosen once and kept when the source grows.

    With `pieces`, pieces of its long documents are held out, and hashes select among the others. `digest` is a cluster
    that is held out too, or whose oldest document loses its end: `cut` is the share of that document. Of a small text
    more than usual is held out: `piece_share` of each long document, and the others with the lowest hashes, which are
    `hash_share` of all hashes.
    """

    later = frozenset({"pieces", "piece_share", "hash_share"})
    digest: Sha256 | None = None
    cut: float | None = Field(default=None, gt=0, lt=1)
    pieces: bool = False
    piece_share: float | None = Field(default=None, gt=0, lt=1)
    hash_share: float | None = Field(default=None, ge=0, lt=1)

    def shares(self, validation_fraction: float) -> tuple[float, float]:
        """Return the share of long documents, and the share of all hashes, that are held out."""
        of_pieces = validation_fraction if self.piece_share is None else self.piece_share
        return of_pieces, validation_fraction if self.hash_share is None else self.hash_share


class HeldOut(Config):
    """The held-out text of a source or of several: what a score of it measures.

    `documents` are held out as a whole. `pieces` were cut from `cut_documents`, the rest of which is training text.
    """

    documents: Count = 0
    pieces: Count = 0
    cut_documents: Count = 0
    bytes: Count | None = 0  # None: an `alm` that did not count them had a part in it


class SourceMetadata(Metadata):
    """Metadata of one source of a clean corpus, `data/clean/<source>.json`.

    `conversations` counts the documents whose messages are kept beside their text.
    """

    newest_version: ClassVar[int] = 2  # with pieces held out: another `alm` would train on them when the source grows
    format: Literal["alm-clean"] = "alm-clean"
    source: str
    kind: str
    revision: str | None
    licence: str | None
    documents: Balance
    bytes: Balance
    validation_documents: Count
    held: HoldOut | None = None
    held_out: HeldOut | None = None
    shards: Annotated[tuple[CleanShard, ...], FailFast()]
    conversations: Count = 0

    def payload(self) -> list[FileRecord]:
        texts = [FileRecord(path=s.file, bytes=s.bytes, sha256=s.sha256) for s in self.shards]
        lines = [(shard.lines_file, shard.lines_sha256) for shard in self.shards]
        return texts + [_unsized(path, digest) for path, digest in lines if path and digest]

    def faults(self) -> Faults:
        yield from self.documents.faults("documents")
        yield from self.bytes.faults("bytes")
        if not self.shards:
            yield "shards", "the list is empty"
        if self.documents.output != sum(shard.documents for shard in self.shards):
            yield "documents.output", f"{self.documents.output:,} is not the sum over the shards"
        if self.validation_documents > self.documents.output:
            yield "validation_documents", f"{self.validation_documents:,} is more than all documents"
        if self.conversations > self.documents.output:
            yield "conversations", f"{self.conversations:,} is more than all documents"
        for number, shard in enumerate(self.shards):
            if not shard.file.startswith(f"{self.source}-"):
                yield f"shards.{number}.file", f"`{shard.file}` is not a shard of `{self.source}`"
            if (shard.lines_file is None) != (shard.lines_sha256 is None):
                yield f"shards.{number}.lines_file", "the file and its hash must be given together"
            if shard.lines_file is None and shard.file.endswith(".txt"):
                yield f"shards.{number}.lines_file", "a shard of text needs document lines"
        least = self.bytes.output + _RECORD_END_BYTES * self.documents.output
        if all(shard.file.endswith(".txt") for shard in self.shards) and sum(s.bytes for s in self.shards) < least:
            yield "bytes.output", f"{self.bytes.output:,} is more than the shards hold"


class TokenizerMetadata(Metadata):
    """Metadata of a tokenizer, `tokenizer.meta.json`, which describes `tokenizer.json` beside it."""

    format: Literal["alm-tokenizer"] = "alm-tokenizer"
    kind: str
    vocab_size: Count
    merges: Count
    documents: Count
    bytes: Count
    bytes_per_id: Annotated[tuple[Count, ...], FailFast()]
    file: FileRecord

    def payload(self) -> list[FileRecord]:
        return [self.file]

    def faults(self) -> Faults:
        if len(self.bytes_per_id) != self.vocab_size:
            yield "bytes_per_id", f"there are {len(self.bytes_per_id):,}, but {self.vocab_size:,} ids"


class PackedShard(_Extended):
    """Tokens of one split of one source. `sequences` counts the rows that start in the shard.

    The last `padding` tokens do not belong to the text; of conversations, those at the ends of all rows. These have a
    mask too, a byte for each token.
    """

    later = frozenset({"mask_file", "mask_sha256"})

    file: Location
    split: SplitName
    source: str
    sequences: Count
    tokens: Count
    sha256: Sha256
    index_file: Location
    index_sha256: Sha256
    padding: Count = 0
    mask_file: Location | None = None
    mask_sha256: Sha256 | None = None


class PackedSource(Config):
    """Counts of one source in one split. tokens = stored_tokens + tail_tokens."""

    documents: Count
    bytes: Count
    tokens: Count
    stored_tokens: Count
    tail_tokens: Count


class PackedConversations(Config):
    """What conversations were packed, and what was left out of them.

    `chat` is their turn format (`alm.tokenizers.chat_format.ChatFormat`). `trained_tokens` of each split are predicted
    in an epoch, `replayed_tokens` of them in text beside the conversations. `shortened` conversations lost
    `dropped_turns` of their first messages to fit into a row; `dropped` counts by reason those that were left out:
    `too_long` in their last turn, `no_answer` to learn, `no_turn` in this format for a role.
    """

    model_config = ConfigDict(extra="ignore")

    chat: Values
    train_on: Literal["assistant", "all"]
    conversations: dict[SplitName, Count]
    trained_tokens: dict[SplitName, Count]
    replayed_tokens: Count = 0
    shortened: Count = 0
    dropped_turns: Count = 0
    dropped: Annotated[dict[str, Count], Few] = Field(default_factory=dict)

    @property
    def answer_tokens(self) -> dict[SplitName, int]:
        """Tokens of conversations that are predicted in an epoch, for each split."""
        replayed = {"train": self.replayed_tokens}
        return {split: count - replayed.get(split, 0) for split, count in self.trained_tokens.items()}


class PackMetadata(Metadata):
    """Metadata of packed data, `data/packed/metadata.json`. input = total - padding + tail.

    `target_tokens` counts the tokens that one epoch predicts.
    """

    newest_version: ClassVar[int] = 2  # of conversations: another `alm` would train on all of their tokens
    format: Literal["alm-packed"] = "alm-packed"
    seq_len: Annotated[Count, Field(ge=2, lt=1 << 31)]
    sequences_per_shard: Annotated[Count, Field(ge=1)]
    dtype: Literal["uint16", "uint32"]
    vocab_size: Annotated[Count, Field(ge=1, le=1 << 32)]
    mode: Literal["concat", "bestfit", "conversations"]
    end_of_text_id: Count
    tokenizer_sha256: Sha256
    tokenizer_file: Location
    sources: Annotated[dict[str, dict[SplitName, PackedSource]], Few]
    shards: Annotated[tuple[PackedShard, ...], FailFast()]
    input_tokens: Count
    total_tokens: Count
    tail_tokens: Count
    held_out: HeldOut | None = None
    padding_tokens: Count = 0
    target_tokens: dict[SplitName, Count] = Field(default_factory=dict)
    conversations: PackedConversations | None = None

    def stride(self, split: str) -> int:
        """Return the tokens from the start of a row to the start of the next; held-out text is always concatenated."""
        return self.seq_len + (self.conversations is not None or (self.mode == "bestfit" and split == "train"))

    def sequences(self, split: str) -> int:
        """Count the rows of `split`."""
        return sum(shard.sequences for shard in self.shards if shard.split == split)

    def tokens(self, split: str) -> int:
        """Count the stored tokens of `split`."""
        return sum(shard.tokens for shard in self.shards if shard.split == split)

    def payload(self) -> list[FileRecord]:
        width = {"uint16": 2, "uint32": 4}[self.dtype]
        bins = [FileRecord(path=s.file, bytes=s.tokens * width, sha256=s.sha256) for s in self.shards]
        indexes = [_unsized(shard.index_file, shard.index_sha256) for shard in self.shards]
        indexes += [
            FileRecord(path=shard.mask_file, bytes=shard.tokens, sha256=shard.mask_sha256)
            for shard in self.shards
            if shard.mask_file is not None and shard.mask_sha256 is not None
        ]
        return [*bins, *indexes, _unsized(self.tokenizer_file, self.tokenizer_sha256)]

    def faults(self) -> Faults:
        largest = 1 << {"uint16": 16, "uint32": 32}[self.dtype]
        if not self.end_of_text_id < self.vocab_size <= largest:
            yield "vocab_size", f"{self.vocab_size:,} does not fit `end_of_text_id` and `dtype`"
        if not self.sequences("train"):
            yield "shards", "there are none for training"
        if self.conversations is not None and min(self.conversations.answer_tokens.values(), default=0) < 0:
            yield "conversations.replayed_tokens", "is more than `trained_tokens`"
        is_masked = self.conversations is not None
        if is_masked != (self.mode == "conversations") or any(is_masked != bool(s.mask_sha256) for s in self.shards):
            yield "conversations", "conversations need masks and their own mode, and nothing else has them"
        for split in ("train", "validation"):
            yield from self._faults_of_rows(split)
        yield from self._faults_of_sums()

    def _faults_of_rows(self, split: str) -> Faults:
        """Check that each shard counts the rows that start in it, and that a split ends with its last row."""
        rows, stride = self.sequences(split), self.stride(split)
        if self.tokens(split) != (rows * stride + (stride == self.seq_len) if rows else 0):
            yield "shards", f"the {split} shards have {self.tokens(split):,} tokens, which do not make {rows:,} rows"
        start = 0
        for number, shard in enumerate(self.shards):
            if shard.split == split:
                end = start + shard.tokens
                wanted = min(-(-end // stride), rows) - min(-(-start // stride), rows)
                if not shard.tokens or shard.sequences != wanted:
                    yield f"shards.{number}.sequences", f"is {shard.sequences:,}, but {wanted:,} rows start in it"
                padded_rows = shard.sequences if self.conversations is not None else 1
                if shard.padding > min(self.seq_len * padded_rows, shard.tokens - 1) * (stride > self.seq_len):
                    yield f"shards.{number}.padding", f"{shard.padding:,} is more than the padding of its rows"
                start = end

    def _faults_of_sums(self) -> Faults:
        stored: Counter[tuple[str, str]] = Counter()
        targets: Counter[str] = Counter()
        for number, shard in enumerate(self.shards):
            if shard.split not in self.sources.get(shard.source, {}):
                yield f"shards.{number}.source", f"`{shard.source}` is not among the sources"
            stored[shard.source, shard.split] += shard.tokens - shard.padding
            targets[shard.split] += shard.sequences * self.seq_len - shard.padding
        counts = {(name, split): count for name, splits in self.sources.items() for split, count in splits.items()}
        for (name, split), count in counts.items():
            if count.stored_tokens != stored[name, split]:
                yield f"sources.{name}.{split}.stored_tokens", f"{count.stored_tokens:,} is not the sum over the shards"
            if count.tokens != count.stored_tokens + count.tail_tokens or count.documents > count.tokens:
                yield f"sources.{name}.{split}.tokens", f"{count.tokens:,} is not the sum of stored tokens and tail"
        for field, sum_ in (
            ("input_tokens", sum(count.tokens for count in counts.values())),
            ("tail_tokens", sum(count.tail_tokens for count in counts.values())),
            ("total_tokens", sum(shard.tokens for shard in self.shards)),
            ("padding_tokens", sum(shard.padding for shard in self.shards)),
        ):
            if getattr(self, field) != sum_:
                yield field, f"{getattr(self, field):,} is not the sum, {sum_:,}"
        trained = None if self.conversations is None else self.conversations.trained_tokens
        for split_, count_ in self.target_tokens.items():
            if count_ != (targets[split_] if trained is None else trained.get(split_)):
                yield f"target_tokens.{split_}", f"{count_:,} is not what the shards hold, {targets[split_]:,}"


class CheckpointMetadata(Config):
    """Metadata of a checkpoint, `ckpt-stepXXXXXX.json`: the promise that the `.pt` beside it is complete.

    `bits_per_byte` is the score of the held-out text after this step, None if the step was not validated.
    """

    model_config = ConfigDict(extra="ignore")

    format: Literal["alm-checkpoint"] = "alm-checkpoint"
    format_version: Annotated[int, Field(strict=True, ge=1)] = FORMAT_VERSION
    file: Location
    step: Count
    bytes: Count
    sha256: Sha256
    bits_per_byte: Measure | None = None


class BestScore(Config):
    """The score of the best checkpoint of a run, after `step`."""

    model_config = ConfigDict(extra="ignore")

    step: Count
    validation_loss: Measure | None = None
    bits_per_byte: Measure
    bits_per_byte_margin: Measure | None = None


class RunResult(_Extended):
    """Result of a finished run. `seconds` is the time spent in steps, over all its sessions.

    Scores are those of the last step, with `bits_per_byte_margin`, half the width of a 95% interval around
    `bits_per_byte`; `best` is that of the checkpoint to use, None if it is the last one. `stopped` says why the run
    ended before its last step, None if it did not.
    """

    model_config = ConfigDict(extra="ignore")
    later = frozenset({"best", "stopped"})

    step: Count
    training_tokens: Count
    validation_loss: Measure | None
    bits_per_byte: Measure | None
    bits_per_byte_margin: Measure | None = None
    best: BestScore | None = None
    stopped: str | None = None
    seconds: Annotated[Measure, Field(le=1e12)]


class RunMetadata(Metadata):
    """Metadata of a run, `runs/<name>/run.json`: lineage and machine; `result` is set once the run is finished.

    `initial_weights` is the checkpoint given with `--init`, if any.
    `asked` holds the requested values, by dotted key, that a budget or a full memory replaced.
    """

    format: Literal["alm-run"] = "alm-run"
    data: Location
    data_sha256: Sha256
    tokenizer_sha256: Sha256
    parameters: Count
    environment: Annotated[dict[str, str], Few]
    asked: Annotated[dict[str, RequestedValue], Few] = Field(default_factory=dict)
    initial_weights: FileRecord | None = None
    result: RunResult | None = None

    def payload(self) -> list[FileRecord]:
        # A run promises only its tokenizer: its checkpoints have their own metadata.
        return [_unsized("tokenizer.json", self.tokenizer_sha256)]


class Comparison(Config):
    """One comparison of an export in another tool with the same model in this alm.

    `difference` is the largest found; above `bar` the export is refused. Without a `bar` it is only reported.
    """

    what: str
    tool: str
    difference: Annotated[float, Field(strict=True)]
    bar: Annotated[float, Field(strict=True)] | None = None
    detail: str = ""

    @property
    def is_close(self) -> bool:
        """Whether the difference is allowed."""
        return self.bar is None or self.difference <= self.bar


class ExportMetadata(Metadata):
    """Metadata of an export, `export.json`: a model in the files of another tool.

    `comparisons` is None if that tool is not installed.
    """

    format: Literal["alm-export"] = "alm-export"
    to: str
    name: str
    step: Count
    parameters: Count
    tokenizer_sha256: Sha256
    comparisons: Annotated[tuple[Comparison, ...] | None, Few] = None
    files: Annotated[tuple[FileRecord, ...], FailFast()]

    def payload(self) -> list[FileRecord]:
        return list(self.files)


class QuantizedCost(Config):
    """What rounding costs on held-out text, measured against the model before.

    `kl_mean` and `kl_99` are of the distributions of the next token, in nats: the mean, and the value that 99% of the
    tokens stay below. `same_top` is the share of tokens for which both have the same first choice. `difference_margin`
    is half of the 95% interval of the difference in bits per byte. The shares of non-words are of sampled text, and
    `non_words_margin` is that of their difference.
    """

    text: str
    tokens: Count
    bits_per_byte_before: Annotated[float, Field(strict=True)]
    bits_per_byte: Annotated[float, Field(strict=True)]
    difference_margin: Annotated[float, Field(strict=True)] | None = None
    kl_mean: Annotated[float, Field(strict=True)]
    kl_99: Annotated[float, Field(strict=True)]
    same_top: Annotated[float, Field(strict=True, ge=0, le=1)]
    non_words_before: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    non_words: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    non_words_margin: Annotated[float, Field(strict=True)] | None = None


class QuantizedMetadata(Metadata):
    """Metadata of a quantized model, `quantized.json`. `tensors` counts the weights by their types.

    `cost` is None without text to measure it on; `calibration` names the text that int4 was calibrated on.
    """

    format: Literal["alm-quantized-model"] = "alm-quantized-model"
    to: str
    name: str
    step: Count
    parameters: Count
    bytes_before: Count
    tokenizer_sha256: Sha256
    tensors: Annotated[dict[str, Count], Few]
    calibration: str | None = None
    cost: QuantizedCost | None = None
    files: Annotated[tuple[FileRecord, ...], FailFast()]

    def payload(self) -> list[FileRecord]:
        return list(self.files)


class HubCommit(Config):
    """A commit of a repository on the Hugging Face hub. `revision` is the branch or tag that was asked for."""

    model_config = ConfigDict(extra="ignore")

    name: str
    revision: str
    sha: Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{40}$")]
    licence: str | None = None


class ImportMetadata(Metadata):
    """Metadata of an import, `import.json`: a model of another tool as a checkpoint of step 0.

    `comparisons` as in `ExportMetadata`. `not_taken` names settings of sampling that a checkpoint does not hold.
    `chat` is the turn format of its chat template (`alm.tokenizers.chat_format.ChatFormat`), null if that is of no
    known form. `repository` is where it is on the hub, null for a local model.
    """

    format: Literal["alm-import"] = "alm-import"
    kind: str
    architecture: str
    parameters: Count
    dtype: str
    tokenizer_sha256: Sha256
    not_taken: Annotated[tuple[str, ...], Few] = ()
    chat: Values | None = None
    repository: HubCommit | None = None
    comparisons: Annotated[tuple[Comparison, ...] | None, Few] = None
    files: Annotated[tuple[FileRecord, ...], FailFast()]

    def payload(self) -> list[FileRecord]:
        return list(self.files)


AnyMetadata = TypeVar("AnyMetadata", bound=Config)


def read(path: Path, schema: type[AnyMetadata], *, hint: str, is_packaged: bool = False) -> AnyMetadata:
    """Return the metadata in `path`; `ArtifactError` with `hint` when it is missing, damaged or of another format.

    The only reader of metadata. The result has the types of the schema, is consistent, names only files inside the
    artifact, and matches its checksum.
    """
    files.ensure_published(path.parent)
    if not path.exists():
        raise ArtifactError(f"`{path}` does not exist", hint=hint)
    try:
        data = files.bounded_bytes(path)
        if (
            data and not is_packaged and _MARK not in data[:_HEAD_BYTES]
        ):  # nothing shows that alm wrote the file, so no hint may overwrite it
            hint = f"name another place, or run `{shell('mv', '-n', path, path.with_name(f'{path.name}.aside'))}`"
        values = files.parse_json(data)
    except InputError as error:
        # What the system refuses to read is not damaged, so that making it again would not help.
        is_refused = isinstance(error.__cause__, OSError)
        raise ArtifactError(error.message, hint=error.hint if is_refused else hint) from error
    except ValueError as error:
        raise ArtifactError(f"`{path}` is damaged: {error}", hint=hint) from error
    if not isinstance(values, dict):
        raise ArtifactError(f"`{path}` is not metadata of `alm`", hint=hint)
    version, newest = values.get("format_version"), getattr(schema, "newest_version", FORMAT_VERSION)
    if type(version) is int and version > newest:
        raise ArtifactError(
            f"`{path}` has format version {version}, this alm {__version__} reads {newest}",
            hint="run `pip install --upgrade a-lm`",
        )
    checksum = values.pop(CHECKSUM, None)
    try:
        found = schema.model_validate(values)
    except ValidationError as error:
        raise ArtifactError(f"`{path}`: {first_problem(error)}", hint=hint) from error
    if isinstance(found, Metadata):
        _check(path, found, hint)
    if checksum not in (None, _checksum(values)):
        raise ArtifactError(f"`{path}` has changed since it was written: `{CHECKSUM}` does not match", hint=hint)
    return found


def first_problem(error: ValidationError) -> str:
    """Describe the first problem a schema found: the field, the reason and the value."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message, value = first["msg"].removeprefix("Value error, "), first["input"]
    is_short = isinstance(value, str | int | float) and first["type"] not in ("missing", "unknown_key", "kind")
    return f"`{place[:_VALUE_SHOWN]}`: {message}" + (f", not {value!r:.{_VALUE_SHOWN}}" if is_short else "")


def _check(path: Path, found: Metadata, hint: str) -> None:
    """Raise `ArtifactError` if `found`, read from `path`, does not add up or names files outside its folder."""
    names = [files.inside(path.parent, file.path) for file in found.payload()]
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise ArtifactError(f"`{path}` names `{twice.name}` twice", hint=hint)
    for field, fault in found.faults():
        raise ArtifactError(f"`{path}` does not add up: `{field}`: {fault}", hint=hint)


def _checksum(values: Values) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write(path: Path, metadata: Config) -> None:
    """Write `metadata`, the promise that the artifact is complete: call it last.

    Metadata whose readers skip unknown keys holds a hash of its values, so that a damaged value is noticed.
    """
    values = metadata.model_dump(mode="json")
    if metadata.model_config.get("extra") == "ignore":
        values[CHECKSUM] = _checksum(values)
    files.write_json(path, values)


def current(
    path: Path, schema: type[AnyMetadata], *, config: Values, inputs: Iterable[FileRecord], force: bool, redo: str
) -> AnyMetadata | None:
    """Return the metadata in `path` if it was made with `config` from `inputs`: the artifact is up to date.

    None if nothing is there, if all of its files were removed, or if `force` is given. Raises `ArtifactError` for an
    artifact made with other settings or inputs, with the differences and `redo`, the command that makes it again.
    """
    files.ensure_published(path.parent)
    if force or not path.is_file():
        return None
    hint = f"run `{redo} --force` to make it again"
    found = read(path, schema, hint=hint)
    assert isinstance(found, Metadata)
    if all_removed(path.parent, found.payload()):
        return None
    different = [*_input_differences(found.inputs, inputs), *_config_differences(found.config, config)]
    if different:
        raise ArtifactError("\n  ".join([f"`{path}` was made from other inputs", *different]), hint=hint)
    if faults := absent(path.parent, found.payload()):
        raise ArtifactError(f"`{path}` no longer matches its files: {faults[0]}", hint=hint)
    return found


def differences(found: Metadata, *, config: Values, inputs: Iterable[FileRecord]) -> list[str]:
    """List how `config` and `inputs` differ from those of `found`, a line each; new inputs do not count."""
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
    """Yield the leaves of nested `values` with their dotted keys."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def damaged(folder: Path, payload: Iterable[FileRecord]) -> list[str]:
    """List what is wrong with the promised files, one sentence each; empty if all are complete."""
    return [fault for file in payload if (fault := _fault(folder / file.path, file))]


def absent(folder: Path, payload: Iterable[FileRecord]) -> list[str]:
    """List the promised files that are missing or of another size, without reading them."""
    return [fault for file in payload if (fault := _size_fault(folder / file.path, file))]


def all_removed(folder: Path, payload: Sequence[FileRecord]) -> bool:
    """Whether nothing is left of the promised files, so that making them again overwrites nothing."""
    return bool(payload) and not any(os.path.lexists(folder / file.path) for file in payload)


def _size_fault(path: Path, promised: FileRecord) -> str | None:
    if not path.is_file():
        return f"`{path}` is missing"
    if promised.bytes not in (-1, size := path.stat().st_size):
        return f"`{path}` has {size:,} bytes, {promised.bytes:,} were written"
    return None


def _fault(path: Path, promised: FileRecord) -> str | None:
    fault = _size_fault(path, promised)
    is_changed = fault is None and files.sha256(path) != promised.sha256
    return f"`{path}` has changed since it was written" if is_changed else fault
