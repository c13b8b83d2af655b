"""Reads packed data: the token stream of a split, and any of its rows.

The shards of a split, in order, are one stream. Row `r` starts at token `r * stride` and reads `seq_len + 1` tokens:
the inputs, and the same shifted by one as targets. The stride is `seq_len` for concatenated documents, and
`seq_len + 1` for best-fit rows and those of conversations, which share no token. Conversations have a mask beside the
tokens: `TRAINED` where a token is learned, `READ` where it is only read, `PADDED` behind the last one of a row.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from alm import artifacts
from alm.artifacts import PackedShard, PackMetadata
from alm.config.commands import command_of
from alm.corpus.split import TRAIN, VALIDATION
from alm.errors import ArtifactError
from alm.files import raw_array, sha256
from alm.packing.mapping import Unmapped, arrays

METADATA_NAME = "metadata.json"
TOKENIZER_NAME = "tokenizer.json"

_MOST_HASHED_BYTES = 8 << 30
_HASHED_TOGETHER = 4  # files at a time; hashing releases the interpreter's lock

READ, TRAINED, PADDED = 0, 1, 2

Ids = NDArray[np.int64]
Mask = NDArray[np.uint8]
_Number = TypeVar("_Number", np.int64, np.uint8)


def pack_command(folder: Path) -> str:
    """Return the command that makes `folder`, for hints."""
    return shlex.join(["alm", "pack", "--out", str(folder)])


@dataclass(frozen=True)
class TokenStream:
    """The tokens of one split. Shards are memory-mapped, so opening them reads nothing."""

    folder: Path
    shards: tuple[PackedShard, ...]
    seq_len: int
    dtype: str
    stride: int
    is_masked: bool = False

    @cached_property
    def sequences(self) -> int:
        """Number of rows of this split."""
        return sum(shard.sequences for shard in self.shards)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Stream position of each shard's first token, and the end of the stream."""
        return np.concatenate([[0], np.cumsum([shard.tokens for shard in self.shards])]).astype(np.int64)

    @cached_property
    def _arrays(self) -> list[NDArray[np.uint32] | Unmapped]:
        width = np.dtype(self.dtype).newbyteorder("<")
        return arrays([self.folder / shard.file for shard in self.shards], dtype=width)

    def tokens(self, start: int, length: int) -> Ids:
        """Return `length` token ids from stream position `start`, across shards."""
        return self._read(self._arrays, start, np.empty(length, dtype=np.int64))

    def _read(self, shard_arrays: Sequence[Any], start: int, out: NDArray[_Number]) -> NDArray[_Number]:
        """Fill `out` with what is beside the tokens from stream position `start` on, across shards."""
        length = len(out)
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        filled = 0
        while filled < length:
            offset = start + filled - int(self._starts[shard])
            piece = shard_arrays[shard][offset : offset + length - filled]
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
            shard += 1
        return out

    def rows(self, numbers: NDArray[np.int64], shifts: NDArray[np.int64] | None = None) -> Ids:
        """Return the rows `numbers`, or what begins `shifts` tokens later, as ids (len(numbers), seq_len + 1)."""
        length = self.seq_len + 1
        out = np.empty((len(numbers), length), dtype=np.int64)
        starts = numbers * self.stride if shifts is None else numbers * self.stride + shifts
        shards = np.searchsorted(self._starts, starts, side="right") - 1
        offsets = starts - self._starts[shards]
        is_inside = starts + length <= self._starts[shards + 1]
        shard_arrays = self._arrays
        # A loop over slices is faster than indexing every token.
        for row, (shard, offset, inside) in enumerate(
            zip(shards.tolist(), offsets.tolist(), is_inside.tolist(), strict=True)
        ):
            at = slice(offset, offset + length)
            out[row] = shard_arrays[shard][at] if inside else self.tokens(int(starts[row]), length)
        return out

    def mask(self, numbers: NDArray[np.int64]) -> Mask:
        """Return the mask of the rows `numbers` of conversations, (len(numbers), seq_len + 1)."""
        out = np.empty((len(numbers), self.seq_len + 1), dtype=np.uint8)
        for row, number in zip(out, numbers.tolist(), strict=True):
            self._read(self._masks, number * self.stride, row)
        return out

    def documents(self, numbers: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the number of each token's document in its row, from 0, for the rows `numbers`: as `mask`."""
        places = numbers[:, None] * self.stride + np.arange(self.seq_len + 1)
        found = np.searchsorted(self._document_starts, places, side="right")
        first: NDArray[np.int64] = found[:, :1]
        return (found - first).astype(np.int32)

    @cached_property
    def _document_starts(self) -> NDArray[np.int64]:
        return self.document_starts()

    @cached_property
    def _masks(self) -> list[NDArray[Any] | Unmapped]:
        return arrays([self.folder / str(shard.mask_file) for shard in self.shards], dtype=np.dtype(np.uint8))

    @cached_property
    def padding(self) -> dict[int, int]:
        """Number of padding tokens at the end of each row that has any; the mask has those of conversations."""
        if self.is_masked:
            return {}
        ends = np.cumsum([shard.sequences for shard in self.shards])
        return {int(end) - 1: shard.padding for end, shard in zip(ends, self.shards, strict=True) if shard.padding}

    @cached_property
    def sources(self) -> dict[str, range]:
        """Range of the rows that start in each source."""
        found: dict[str, range] = {}
        row = 0
        for shard in self.shards:
            first = found[shard.source].start if shard.source in found else row
            row += shard.sequences
            found[shard.source] = range(first, row)
        return found

    def document_starts(self) -> NDArray[np.int64]:
        """Return the stream positions of document starts."""
        begins = zip(self.shards, self._starts.tolist(), strict=False)
        found = [self._index(shard) + begin for shard, begin in begins]
        return np.concatenate([np.empty(0, np.int64), *found])

    def _index(self, shard: PackedShard) -> Ids:
        """Return the document starts in `shard`. Raises `ArtifactError` if the index file has changed."""
        path = self.folder / shard.index_file
        try:
            found = raw_array(path, dtype="<i8").astype(np.int64)
        except ValueError as error:
            raise _changed(path, self.folder) from error
        is_rising = bool((np.diff(found) > 0).all())
        if len(found) and not (is_rising and int(found[0]) >= 0 and int(found[-1]) < shard.tokens):
            raise _changed(path, self.folder)
        return found

    def starts(self, row: int, shift: int = 0) -> NDArray[np.int64]:
        """Return the positions in a row, from 0, where documents start; the row begins `shift` tokens later."""
        first = row * self.stride + shift
        found = []
        holding = np.searchsorted(self._starts, [first, first + self.seq_len], side="right") - 1
        for number in range(int(holding[0]), min(int(holding[1]) + 1, len(self.shards))):
            shard, begin = self.shards[number], int(self._starts[number])
            index = self._index(shard) + begin - first
            found.append(index[(index >= 0) & (index <= self.seq_len)])
        return np.concatenate(found)


def _changed(path: Path, folder: Path) -> ArtifactError:
    return ArtifactError(f"`{path}` has changed since it was written", hint=f"run `{pack_command(folder)} --force`")


@dataclass(frozen=True)
class PackedData:
    """A packed folder whose metadata matches its files."""

    folder: Path
    metadata: PackMetadata

    @property
    def tokenizer_path(self) -> Path:
        """Path of the copy of the tokenizer that made the shards."""
        return self.folder / self.metadata.tokenizer_file

    def split(self, name: str) -> TokenStream:
        """Return the token stream of split `name`, which may have no rows."""
        shards = tuple(shard for shard in self.metadata.shards if shard.split == name)
        metadata = self.metadata
        is_masked = metadata.conversations is not None
        return TokenStream(self.folder, shards, metadata.seq_len, metadata.dtype, metadata.stride(name), is_masked)


def open_packed(folder: Path, *, is_hashed: bool = False) -> PackedData:
    """Open the packed data in `folder`.

    Raises `ArtifactError` if it is missing, a file's size has changed, or the tokenizer beside the shards is not the
    one that made them. With `is_hashed`, it also compares the hashes of all files, unless there are more than 8 GiB,
    which would take minutes to read.
    """
    hint = f"run `{pack_command(folder)}`"
    if not (folder / METADATA_NAME).is_file():
        raise ArtifactError(f"`{folder}` holds no packed data: there is no `{METADATA_NAME}`", hint=hint)
    metadata = artifacts.read(folder / METADATA_NAME, PackMetadata, hint=f"run `{pack_command(folder)} --force`")
    redo = command_of(metadata.command, stage=("alm", "pack"), out=folder, otherwise=pack_command(folder))
    hint = f"run `{redo} --force`"
    faults = artifacts.absent(folder, metadata.payload())
    if faults:
        raise ArtifactError(faults[0], hint=hint)
    if is_hashed and sum(file.bytes for file in metadata.payload()) <= _MOST_HASHED_BYTES:
        with ThreadPoolExecutor(_HASHED_TOGETHER) as threads:
            hashes = threads.map(lambda file: sha256(folder / file.path), metadata.payload())
            for file, found in zip(metadata.payload(), hashes, strict=True):
                if found != file.sha256 and file.path != metadata.tokenizer_file:
                    raise _changed(folder / file.path, folder)
    packed = PackedData(folder, metadata)
    digest = sha256(packed.tokenizer_path)
    if digest != metadata.tokenizer_sha256:
        raise ArtifactError(
            f"shards in `{folder}` were made with another tokenizer\n"
            f"  shards     {metadata.tokenizer_sha256[: artifacts.SHORT_HASH]}\n"
            f"  tokenizer  {digest[: artifacts.SHORT_HASH]}  {packed.tokenizer_path}",
            hint=hint,
        )
    return packed


__all__ = ["TRAIN", "VALIDATION", "PackedData", "TokenStream", "open_packed", "pack_command"]
