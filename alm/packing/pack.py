"""The stage `alm pack`: clean text in, shards of token ids out, every token counted.

Documents are joined with the end-of-text id between them, one stream a split, and the stream is cut
into rows. What does not fill a last row is the counted tail: tokens in = stored + tail.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alm import artifacts
from alm.artifacts import FileRecord, PackedShard, PackedSource, PackMetadata
from alm.corpus.read import CleanDocument, CleanFile, find, read_documents
from alm.corpus.split import SPLITS, TRAIN, VALIDATION, split_of
from alm.errors import ConfigError, InputError
from alm.events import Listener, Noted, Progressed, Warned, ignore
from alm.files import atomic, publish, staging
from alm.packing.config import PackConfig
from alm.packing.shards import METADATA_NAME, TOKENIZER_NAME
from alm.tokenizers.file import Tokenizer

_SHARD = re.compile(r"shard_\d{5,}\.(bin|idx)")
_BATCH_CHARACTERS = 1 << 20
_FEWEST_TOKENS = 3  # the shortest sequence and one more to predict
MODE = "concat"


def pack(
    config: PackConfig,
    *,
    tokenizer: Path,
    clean: Sequence[str | Path],
    out: Path,
    force: bool = False,
    redo: str = "alm pack",
    on_event: Listener = ignore,
) -> PackMetadata:
    """Write the shards of the text in `clean` to `out`; packed data that is up to date is kept.

    Raises `InputError` when the training text is shorter than one sequence, `ArtifactError` when `out`
    was made otherwise and `force` is not given.
    """
    loaded = Tokenizer.load(tokenizer)
    _check_width(config, loaded)
    files = find(clean)
    inputs = (
        artifacts.record(tokenizer, relative_to=out, sha256=loaded.sha256),
        *(file.record(relative_to=out) for file in files),
    )
    values = config.model_dump(mode="json")
    kept = artifacts.current(out / METADATA_NAME, PackMetadata, config=values, inputs=inputs, force=force, redo=redo)
    if kept is not None:
        on_event(Noted(f"`{out}` is up to date: {kept.total_tokens:,} tokens in {len(kept.shards)} shards"))
        return kept
    with staging(out, "packing") as stage:
        packed = _pack_files(config, loaded, files, stage, on_event)
        loaded.save(stage / TOKENIZER_NAME)
        metadata = packed.metadata(config, loaded, values, inputs, redo)
        _warn_without_validation(metadata, on_event)
        artifacts.write(stage / METADATA_NAME, metadata)
        publish(stage, out, last=METADATA_NAME, replaces=_previous(out))
    return metadata


def _previous(out: Path) -> list[str]:
    """The shards in `out`, by the names that only packing gives."""
    return [path.name for path in out.glob("shard_*") if path.is_file() and _SHARD.fullmatch(path.name)]


def _check_width(config: PackConfig, tokenizer: Tokenizer) -> None:
    if tokenizer.vocab_size > np.iinfo(config.dtype).max + 1:
        raise ConfigError(
            f"a vocabulary of {tokenizer.vocab_size:,} does not fit in {config.dtype}",
            hint="pack with `--dtype uint32`",
        )


def _warn_without_validation(metadata: PackMetadata, on_event: Listener) -> None:
    if metadata.sequences(VALIDATION) == 0:
        held = sum(splits[VALIDATION].tokens for splits in metadata.sources.values())
        on_event(
            Warned(
                f"{held:,} tokens are held out, fewer than one sequence: training will not be validated",
                "raise `validation_fraction` in the corpus, or lower `--seq-len`",
            )
        )


def _pack_files(
    config: PackConfig, tokenizer: Tokenizer, files: Sequence[CleanFile], stage: Path, on_event: Listener
) -> _Packed:
    packed = _Packed(stage, config)
    documents = 0
    for batch in _batches(_with_split(read_documents(files), config.validation_fraction)):
        encoded = tokenizer.encode_batch([document.text for document in batch], on_event=on_event)
        for number, document in enumerate(batch):
            ids = encoded.ids[encoded.offsets[number] : encoded.offsets[number + 1]]
            packed.add(document, np.append(ids, np.int32(tokenizer.end_of_text_id)))
        documents += len(batch)
        on_event(Progressed("packing", documents, None, "documents"))
    packed.close()
    return packed


def _with_split(documents: Iterable[CleanDocument], validation_fraction: float) -> Iterator[CleanDocument]:
    """Documents without a split get one by their own hash, as `alm corpus prepare` would give it."""
    for document in documents:
        if document.split is None:
            digest = hashlib.sha256(document.text.encode("utf-8")).hexdigest()
            split = split_of(digest, validation_fraction)
            yield CleanDocument(document.text, document.source, document.origin, split)
        else:
            yield document


def _batches(documents: Iterable[CleanDocument]) -> Iterator[list[CleanDocument]]:
    batch: list[CleanDocument] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _Packed:
    """Everything written so far: one stream a split, counts a source."""

    def __init__(self, stage: Path, config: PackConfig) -> None:
        numbers = count()
        self._counts: dict[str, dict[str, _Count]] = {}
        self._seq_len = config.seq_len
        self._streams = {split: _Stream(split, stage, config, numbers, self._counts) for split in SPLITS}
        self.shards: list[PackedShard] = []

    def add(self, document: CleanDocument, ids: NDArray[np.int32]) -> None:
        assert document.split is not None
        counts = self._counts.setdefault(document.source, {split: _Count() for split in SPLITS})[document.split]
        counts.documents += 1
        counts.bytes += len(document.text.encode("utf-8"))
        counts.tokens += len(ids)
        self._streams[document.split].add(document.source, ids)

    def close(self) -> None:
        train = self._streams[TRAIN]
        if train.tokens < _FEWEST_TOKENS:
            raise InputError(
                f"the training text has {train.tokens:,} tokens: there is nothing to pack",
                hint="look at what is held out with `alm info`, or prepare more text",
            )
        if train.tokens < self._seq_len + 1:
            raise InputError(
                f"the training text has {train.tokens:,} tokens, one sequence of {self._seq_len:,} needs "
                f"{self._seq_len + 1:,}",
                hint=f"pack with `--seq-len {max(2, train.tokens // 2)}` or less, or prepare more text",
            )
        for split in SPLITS:
            self.shards.extend(self._streams[split].close())

    def metadata(
        self,
        config: PackConfig,
        tokenizer: Tokenizer,
        values: artifacts.Values,
        inputs: tuple[FileRecord, ...],
        command: str,
    ) -> PackMetadata:
        sources = {
            name: {split: counts.frozen() for split, counts in splits.items()}
            for name, splits in sorted(self._counts.items())
        }
        input_tokens = sum(c.tokens for splits in sources.values() for c in splits.values())
        tail_tokens = sum(c.tail_tokens for splits in sources.values() for c in splits.values())
        total_tokens = sum(shard.tokens for shard in self.shards)
        assert input_tokens == total_tokens + tail_tokens, (input_tokens, total_tokens, tail_tokens)
        return PackMetadata(
            command=command,
            config=values,
            inputs=inputs,
            seq_len=config.seq_len,
            sequences_per_shard=config.sequences_per_shard,
            dtype=config.dtype,
            vocab_size=tokenizer.vocab_size,
            mode=MODE,
            end_of_text_id=tokenizer.end_of_text_id,
            tokenizer_sha256=tokenizer.sha256,
            tokenizer_file=TOKENIZER_NAME,
            sources=sources,
            shards=tuple(sorted(self.shards, key=lambda shard: shard.file)),
            input_tokens=input_tokens,
            total_tokens=total_tokens,
            tail_tokens=tail_tokens,
        )


@dataclass
class _Count:
    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    stored_tokens: int = 0

    def frozen(self) -> PackedSource:
        return PackedSource(
            documents=self.documents,
            bytes=self.bytes,
            tokens=self.tokens,
            stored_tokens=self.stored_tokens,
            tail_tokens=self.tokens - self.stored_tokens,
        )


@dataclass(frozen=True)
class _Piece:
    """Tokens of one source; `begins` says that the first of them begins a document."""

    source: str
    ids: NDArray[np.int32]
    begins: bool


class _Stream:
    """The tokens of one split on their way to shards.

    The last `seq_len` tokens are held back until more come, because only the end of the stream tells
    how many of them fill a row.
    """

    def __init__(
        self, split: str, stage: Path, config: PackConfig, numbers: Iterator[int], counts: dict[str, dict[str, _Count]]
    ) -> None:
        self.tokens = 0
        self._split = split
        self._stage = stage
        self._config = config
        self._numbers = numbers
        self._counts = counts
        self._held: deque[_Piece] = deque()
        self._held_tokens = 0
        self._stored = 0
        self._shard: _Shard | None = None
        self._finished: list[tuple[_Shard, int]] = []

    def add(self, source: str, ids: NDArray[np.int32]) -> None:
        self._held.append(_Piece(source, ids, begins=True))
        self._held_tokens += len(ids)
        self.tokens += len(ids)
        self._store(self._held_tokens - self._config.seq_len)

    def close(self) -> list[PackedShard]:
        rows = max(0, (self.tokens - 1) // self._config.seq_len)
        self._store(rows * self._config.seq_len + 1 - self._stored if rows else 0)
        self._finish_shard()
        return [
            shard.promise(self._split, _rows_between(start, start + shard.tokens, self._config.seq_len, rows))
            for shard, start in self._finished
        ]

    def _store(self, number: int) -> None:
        """Move the first `number` held tokens to shards."""
        while number > 0:
            piece = self._held.popleft()
            room = self._room(piece.source)
            taken = min(number, room, len(piece.ids))
            assert self._shard is not None
            self._shard.write(piece.ids[:taken], begins=piece.begins)
            self._counts[piece.source][self._split].stored_tokens += taken
            self._stored += taken
            self._held_tokens -= taken
            number -= taken
            if taken < len(piece.ids):
                self._held.appendleft(_Piece(piece.source, piece.ids[taken:], begins=False))

    def _room(self, source: str) -> int:
        """Tokens that fit into the open shard of `source`, which is opened if need be."""
        full = self._config.seq_len * self._config.sequences_per_shard
        if self._shard is not None and (self._shard.source != source or self._shard.tokens == full):
            self._finish_shard()
        if self._shard is None:
            self._shard = _Shard(self._stage, next(self._numbers), source, self._config.dtype)
        return full - self._shard.tokens

    def _finish_shard(self) -> None:
        if self._shard is not None:
            self._shard.finish()
            self._finished.append((self._shard, self._stored - self._shard.tokens))
            self._shard = None


def _rows_between(start: int, end: int, seq_len: int, rows: int) -> int:
    """How many of the first `rows` rows start at a stream position in [start, end)."""
    first, after = -(-start // seq_len), -(-end // seq_len)
    return min(after, rows) - min(first, rows)


@dataclass
class _Shard:
    """One shard being filled; held in memory until it is full, which `sequences_per_shard` bounds."""

    stage: Path
    number: int
    source: str
    dtype: str
    tokens: int = 0
    pieces: list[NDArray[np.int32]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    sha256: str = ""
    index_sha256: str = ""

    @property
    def stem(self) -> str:
        return f"shard_{self.number:05d}"

    def write(self, ids: NDArray[np.int32], *, begins: bool) -> None:
        if begins:
            self.starts.append(self.tokens)
        self.pieces.append(ids)
        self.tokens += len(ids)

    def finish(self) -> None:
        width = np.dtype(self.dtype).newbyteorder("<")
        tokens = np.concatenate(self.pieces).astype(width).tobytes()
        starts = np.array(self.starts, dtype="<i8").tobytes()
        self.sha256 = _write(self.stage / f"{self.stem}.bin", tokens)
        self.index_sha256 = _write(self.stage / f"{self.stem}.idx", starts)
        self.pieces, self.starts = [], []

    def promise(self, split: str, sequences: int) -> PackedShard:
        return PackedShard(
            file=f"{self.stem}.bin",
            split=split,
            source=self.source,
            sequences=sequences,
            tokens=self.tokens,
            sha256=self.sha256,
            index_file=f"{self.stem}.idx",
            index_sha256=self.index_sha256,
        )


def _write(path: Path, data: bytes) -> str:
    with atomic(path) as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()
