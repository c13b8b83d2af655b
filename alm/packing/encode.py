"""The first pass of packing: encodes one part of the text, or of foreign tokens, into one file of ids per split.

It runs in whichever process the engine chooses. A finished part has a marker, so a killed run loses only the parts in
progress. Nothing here depends on the sequence length.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from alm import artifacts
from alm.artifacts import HoldOut
from alm.config.base import Config
from alm.corpus.read import CleanDocument, CleanPart, read_part
from alm.corpus.split import SPLITS, TRAIN, VALIDATION, split_of
from alm.errors import AlmError, InputError
from alm.events import Listener
from alm.files import Unchanged, atomic, raw_array, read_json, write_bytes
from alm.packing import imported_tokens
from alm.packing.conversations import Fitter, Turns
from alm.packing.foreign_text import split_foreign
from alm.packing.mapping import mapped
from alm.packing.shards import READ, TRAINED
from alm.tokenizers.file import Encoded as EncodedTexts
from alm.tokenizers.file import Tokenizer

_BATCH_CHARACTERS = 1 << 20
_FORMAT = 1
_MOST_BYTES = 1 << 16  # of a marker


class Count(Config):
    """Documents, bytes and tokens of one split in a part; of conversations also what is learned, and left out."""

    documents: artifacts.Count = 0
    bytes: artifacts.Count = 0
    tokens: artifacts.Count = 0
    pieces: artifacts.Count = 0  # those of the documents that were cut here from `cut_documents`
    cut_documents: artifacts.Count = 0
    trained: artifacts.Count = 0
    shortened: artifacts.Count = 0
    dropped_turns: artifacts.Count = 0
    too_long: artifacts.Count = 0
    no_answer: artifacts.Count = 0
    no_turn: artifacts.Count = 0

    def __add__(self, other: Count) -> Count:
        return Count(**{name: getattr(self, name) + getattr(other, name) for name in Count.model_fields})


class Marker(Config):
    """`NNNNNN.json`: the promise that a part is encoded."""

    key: str
    counts: dict[str, Count]
    left_out: dict[str, str] = Field(default_factory=dict)  # by reason, the origin of the first conversation


@dataclass(frozen=True)
class Encoded:
    """The files of an encoded part: for each split, its documents in order, each with its end of text."""

    folder: Path
    number: int
    dtype: str

    def ids_path(self, split: str) -> Path:
        """Return the path of the ids, which have the same integer type as the shards."""
        return self.folder / f"{self.number:06d}.{split}.ids"

    def ends_path(self, split: str) -> Path:
        """Return the path of the document ends, int64."""
        return self.folder / f"{self.number:06d}.{split}.ends"

    def mask_path(self, split: str) -> Path:
        """Return the path of the mask of conversations, a byte for each id."""
        return self.folder / f"{self.number:06d}.{split}.mask"

    @property
    def marker_path(self) -> Path:
        """Path of the marker, which is written last."""
        return self.folder / f"{self.number:06d}.json"

    def ids(self, split: str) -> NDArray[Any]:
        """Return the ids, memory-mapped if possible."""
        path = self.ids_path(split)
        width = np.dtype(self.dtype).newbyteorder("<")
        array = mapped(path, dtype=width)
        return raw_array(path, dtype=width) if array is None else array

    def mask(self, split: str) -> NDArray[np.uint8]:
        """Return the mask of conversations."""
        return raw_array(self.mask_path(split), dtype=np.uint8)

    def ends(self, split: str) -> NDArray[np.int64]:
        """Return the end of each document."""
        return raw_array(self.ends_path(split), dtype="<i8").astype(np.int64)


@dataclass(frozen=True)
class EncodeWork:
    """One part to encode. `identity` holds the hashes of its files."""

    number: int
    part: CleanPart | imported_tokens.Part
    identity: str
    tokenizer: Path
    tokenizer_sha256: str
    begin_of_text_id: int | None
    validation_fraction: float
    hold_out: HoldOut | None  # of foreign text
    dtype: str
    folder: Path
    expected_characters: int
    given: Unchanged  # its files
    turns: Turns | None = None  # of conversations
    is_replayed: bool = False  # text to learn beside conversations

    @property
    def source(self) -> str:
        """Source of the part."""
        return self.part.source

    @property
    def encoded(self) -> Encoded:
        """Files that the ids are written to."""
        return Encoded(self.folder, self.number, self.dtype)

    def key(self) -> str:
        """Return a hash of everything that decides the ids."""
        decisive = (_FORMAT, self.part.where(), self.identity, self.tokenizer_sha256, self.validation_fraction)
        chosen = [] if self.hold_out is None else [self.hold_out.model_dump_json()]
        chosen += [] if self.begin_of_text_id is None else [f"begin {self.begin_of_text_id}"]
        chosen += [] if self.turns is None else [self.turns.model_dump_json()]
        chosen += ["replayed"] if self.is_replayed else []
        return hashlib.sha256(repr((*decisive, *chosen, self.dtype)).encode()).hexdigest()

    def finished(self) -> Marker | None:
        """Return the marker if the part is already encoded with the same key and its files are complete."""
        try:
            marker = Marker.model_validate(read_json(self.encoded.marker_path, most=_MOST_BYTES))
        except (AlmError, ValueError):
            return None
        width = np.dtype(self.dtype).itemsize
        whole = all(
            _size(self.encoded.ids_path(split)) == count.tokens * width
            and _size(self.encoded.ends_path(split)) == count.documents * 8
            and (self.turns is None or _size(self.encoded.mask_path(split)) == count.tokens)
            for split, count in marker.counts.items()
        )
        return marker if whole and marker.key == self.key() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def encode(work: EncodeWork, on_event: Listener) -> Marker:
    """Write the ids of a part, then its marker."""
    with ExitStack() as stack:
        outs = {split: _Out(stack.enter_context(atomic(work.encoded.ids_path(split))), work.dtype) for split in SPLITS}
        left_out: dict[str, str] = {}
        if isinstance(work.part, imported_tokens.Part):
            _copy(work, work.part, outs)
        elif work.turns is not None and work.is_replayed:
            _encode_replayed(work, work.part, work.turns, outs[TRAIN], on_event)
        elif work.turns is not None:
            left_out = _encode_conversations(work, work.part, work.turns, outs)
        else:
            _encode(work, work.part, outs, on_event)
    for split, out in outs.items():
        ends = np.concatenate([np.zeros(0, dtype=np.int64), *out.ends])
        write_bytes(work.encoded.ends_path(split), ends.astype("<i8").tobytes())
        if work.turns is not None:
            write_bytes(work.encoded.mask_path(split), b"".join(out.masks))
    work.given.check()  # a part is read by its place in a file, and its key has the hash from before
    # The marker is written last, because it promises that the ids and ends are complete.
    marker = Marker(key=work.key(), counts={split: out.count for split, out in outs.items()}, left_out=left_out)
    artifacts.write(work.encoded.marker_path, marker)
    return marker


class _Out:
    """Writes the ids of one split and counts them."""

    def __init__(self, file: Any, dtype: str) -> None:
        self._write = file.write
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self.ends: list[NDArray[np.int64]] = []
        self.masks: list[bytes] = []
        self.count = Count()

    def add(self, ids: NDArray[Any], lengths: NDArray[np.int64], size: int) -> None:
        """Write documents of these `lengths`, with `size` bytes of text in all."""
        self._write(ids.astype(self._dtype).tobytes())
        self.ends.append(self.count.tokens + np.cumsum(lengths))
        self.count += Count(documents=len(lengths), bytes=size, tokens=len(ids))


def _encode(work: EncodeWork, part: CleanPart, outs: dict[str, _Out], on_event: Listener) -> None:
    tokenizer = _tokenizer(work.tokenizer, work.tokenizer_sha256)
    tokenizer.expect(work.expected_characters)
    for batch in _batches(read_part(part)):
        of_documents = [split_foreign(document, work.validation_fraction, work.hold_out) for document in batch]
        texts = [text for parts in of_documents for text, _ in parts]
        encoded = tokenizer.encode_batch(texts, on_event=on_event)
        ids, lengths = framed(encoded, begin_id=work.begin_of_text_id, end_id=tokenizer.end_of_text_id)
        held_out = np.array([split == VALIDATION for parts in of_documents for _, split in parts])
        sizes = tokenizer.bytes_of(encoded)
        _add(outs, ids, lengths, sizes, held_out)
        pieces = [sum(split == VALIDATION for _, split in parts) for parts in of_documents if len(parts) > 1]
        outs[VALIDATION].count += Count(pieces=sum(pieces), cut_documents=len(pieces))


def _add(
    outs: dict[str, _Out],
    ids: NDArray[np.int32],
    lengths: NDArray[np.int64],
    sizes: NDArray[np.int64],
    held_out: NDArray[np.bool_],
) -> None:
    """Write documents of these `lengths` in tokens and `sizes` in bytes, each to its split."""
    if not held_out.any():  # the usual case, without copies
        outs[TRAIN].add(ids, lengths, int(sizes.sum()))
        return
    of_token = np.repeat(held_out, lengths)
    for split, chosen, tokens in ((TRAIN, ~held_out, ~of_token), (VALIDATION, held_out, of_token)):
        outs[split].add(ids[tokens], lengths[chosen], int(sizes[chosen].sum()))


def _encode_conversations(work: EncodeWork, part: CleanPart, turns: Turns, outs: dict[str, _Out]) -> dict[str, str]:
    """Write the ids and masks of conversations. Return the first that was left out for each reason."""
    tokenizer = _tokenizer(work.tokenizer, work.tokenizer_sha256)
    fitter = Fitter(turns, tokenizer)
    fitter.expect(work.expected_characters)
    left_out: dict[str, str] = {}
    for batch in _batches(read_part(part)):
        for document, fitted in zip(batch, fitter.fit(batch), strict=True):
            out = outs[document.split or TRAIN]
            if isinstance(fitted, str):
                left_out.setdefault(fitted, document.origin)
                out.count += Count(**{fitted: 1})
                continue
            ids, is_trained = fitted.encoded.ids, fitted.encoded.is_trained
            size = int(tokenizer.bytes_per_id[ids].sum())
            out.add(ids, np.array([len(ids)], dtype=np.int64), size)
            out.masks.append(np.where(is_trained, TRAINED, READ).astype(np.uint8).tobytes())
            out.count += Count(
                trained=int(is_trained.sum()), shortened=int(fitted.dropped > 0), dropped_turns=fitted.dropped
            )
    return left_out


def _encode_replayed(work: EncodeWork, part: CleanPart, turns: Turns, out: _Out, on_event: Listener) -> None:
    """Write the training text of a part in pieces that fit into a row. All tokens but the first of each are learned."""
    tokenizer = _tokenizer(work.tokenizer, work.tokenizer_sha256)
    tokenizer.expect(work.expected_characters)
    for batch in _batches(read_part(part)):
        texts = [document.text for document in batch if document.text and document.split in (TRAIN, None)]
        encoded = tokenizer.encode_batch(texts, on_event=on_event)
        ids, lengths = framed(encoded, begin_id=work.begin_of_text_id, end_id=tokenizer.end_of_text_id)
        pieces = np.array([piece for length in lengths.tolist() for piece in _cut(length, turns.seq_len + 1)], np.int64)
        mask = np.full(len(ids), TRAINED, dtype=np.uint8)
        mask[np.cumsum(pieces) - pieces] = READ  # nothing comes before it
        out.add(ids, pieces, int(tokenizer.bytes_of(encoded).sum()))
        out.masks.append(mask.tobytes())
        out.count += Count(trained=len(ids) - len(pieces))


def _cut(length: int, most: int) -> Iterator[int]:
    """Yield the lengths of the pieces of a text of at least two tokens: at most `most`, and two or more."""
    while length > most:
        taken = most - (length == most + 1)  # not one token alone, of which nothing could be learned
        yield taken
        length -= taken
    yield length


@functools.lru_cache(maxsize=1)
def _tokenizer(path: Path, sha256: str) -> Tokenizer:
    """Load the tokenizer once per process. Raises `InputError` if it is not the one with this `sha256`."""
    loaded = Tokenizer.load(path)
    if loaded.sha256 != sha256:
        raise InputError(f"`{path}` has changed while it was used", hint="run the same command again")
    return loaded


def framed(encoded: EncodedTexts, *, begin_id: int | None, end_id: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the ids of texts, each between the ids that begin (if any) and end a text, and the length of each."""
    lengths = np.diff(encoded.offsets).astype(np.int64) + 1 + (begin_id is not None)
    joined = np.empty(int(lengths.sum()), dtype=np.int32)
    is_text = np.ones(len(joined), dtype=bool)
    ends = np.cumsum(lengths) - 1
    is_text[ends] = False
    joined[ends] = end_id
    if begin_id is not None:
        starts = ends - lengths + 1
        is_text[starts] = False
        joined[starts] = begin_id
    joined[is_text] = encoded.ids
    return joined, lengths


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


def _copy(work: EncodeWork, part: imported_tokens.Part, outs: dict[str, _Out]) -> None:
    """Copy the tokens of another tool's file, document by document."""
    tokenizer = _tokenizer(work.tokenizer, work.tokenizer_sha256)
    for ids, lengths in imported_tokens.read(
        part, end_of_text_id=tokenizer.end_of_text_id, vocab_size=tokenizer.vocab_size
    ):
        ends = np.cumsum(lengths)
        splits = [
            part.split or split_of(_hash(ids[end - length : end]), work.validation_fraction)
            for end, length in zip(ends, lengths, strict=True)
        ]
        sizes = np.diff(np.cumsum(tokenizer.bytes_per_id[ids], dtype=np.int64)[ends - 1], prepend=0)
        _add(outs, ids, lengths, sizes, np.array([split == VALIDATION for split in splits], dtype=bool))


def _hash(ids: NDArray[np.int32]) -> str:
    return hashlib.sha256(ids.tobytes()).hexdigest()
