"""Reads the token files of other tools: nanoGPT's `.bin` and Megatron's `.bin` with `.idx`.

nanoGPT (data/*/prepare.py): ids as uint16, nothing else. Megatron-LM (megatron/core/datasets/indexed_dataset.py): the
index has the magic `MMIDIDX`, a version, a code for the type of ids, the numbers of sequences and of document ends,
then for each sequence its length (int32) and the byte it starts at (int64), then the document ends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alm import artifacts
from alm.corpus.split import TRAIN, VALIDATION
from alm.errors import InputError, quoted

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<QBQQ")
_TYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_PART_TOKENS = 4_000_000

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Part:
    """Tokens `start` to `end` of a nanoGPT file, or sequences `start` to `end` of a Megatron one."""

    path: Path
    source: str
    split: str | None
    start: int
    end: int

    def where(self) -> tuple[str, int, int]:
        """Return the part's place in its file, and how its split is decided."""
        return ("split by name" if self.split else "split by hash", self.start, self.end)

    @property
    def index(self) -> Path | None:
        """Path of Megatron's index, if it exists."""
        index = self.path.with_suffix(".idx")
        return index if index.is_file() else None


def records(paths: list[Path], *, relative_to: Path) -> list[artifacts.FileRecord]:
    """Return the records of the files, with their hashes."""
    return [artifacts.record(file, relative_to=relative_to) for file in watched(paths) if file.is_file()]


def watched(paths: list[Path]) -> list[Path]:
    """Return the files, each with the path that its index has or would have."""
    return [file for path in paths for file in (path, path.with_suffix(".idx"))]


def find(given: list[str]) -> list[Path]:
    """Return the `.bin` files of paths and folders, sorted. Raises `InputError` if there are none."""
    found: set[Path] = set()
    for one in given:
        path = Path(one).expanduser()
        if path.is_dir():
            found |= set(path.glob("*.bin"))
        elif path.suffix in (".bin", ".idx") and path.with_suffix(".bin").is_file():
            found.add(path.with_suffix(".bin"))
        else:
            raise InputError(
                f"`{one}` is not a `.bin` file of tokens", hint="name nanoGPT's `train.bin`, or a folder of such files"
            )
    if not found:
        raise InputError(f"there is no `.bin` file in `{'`, `'.join(given)}`", hint="name nanoGPT's `train.bin`")
    return sorted(found)


def parts(paths: list[Path], *, end_of_text_id: int) -> Iterator[Part]:
    """Yield the parts of the files, cut between documents.

    If a file is named `val...`, it is the validation split. Otherwise the hash of each document decides its split.
    """
    is_named = any(path.name.startswith("val") for path in paths)
    for path in paths:
        split = (VALIDATION if path.name.startswith("val") else TRAIN) if is_named else None
        # The source is the file name of `wiki_text_document.bin`, but the folder name of `shakespeare/train.bin`.
        name = path.parent.resolve().name if is_named else path.stem.removesuffix("_text_document")
        whole = Part(path, name, split, 0, 0)
        bounds = _sequence_bounds(whole) if whole.index else _token_bounds(whole, end_of_text_id)
        for start, end in pairwise(bounds):
            yield Part(path, whole.source, split, start, end)


def read(part: Part, *, end_of_text_id: int, vocab_size: int) -> Iterator[tuple[Ids, NDArray[np.int64]]]:
    """Yield the ids of the part's documents, each with its end of text, and their lengths.

    Raises `InputError` for an id outside the tokenizer's vocabulary.
    """
    if part.index:
        ids, lengths = _sequences(part, end_of_text_id)
    else:
        ids = np.array(_tokens(part.path)[part.start : part.end], dtype=np.int64)
        ends = np.flatnonzero(ids == end_of_text_id) + 1
        if not len(ends) or ends[-1] != len(ids):  # the file does not end with one
            ids = np.append(ids, end_of_text_id)
            ends = np.append(ends, len(ids))
        lengths = np.diff(ends, prepend=0)
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        worst = int(ids.max()) if int(ids.max()) >= vocab_size else int(ids.min())
        raise InputError(
            f"`{part.path}` holds the id {worst}, but the tokenizer has {vocab_size:,} ids",
            hint="give the tokenizer that made the file with `--tokenizer`",
        )
    yield ids.astype(np.int32), lengths.astype(np.int64)


def _tokens(path: Path) -> NDArray[Any]:
    size = path.stat().st_size
    if size % 2:
        raise InputError(
            f"`{path}` has an odd number of bytes: it is not a uint16 token file",
            hint=f"run `ls -l {quoted(path)}`",
        )
    return np.memmap(path, dtype="<u2", mode="r") if size else np.zeros(0, dtype="<u2")


def _token_bounds(part: Part, end_of_text_id: int) -> list[int]:
    tokens = _tokens(part.path)
    bounds = [0]
    while bounds[-1] < len(tokens):
        at = bounds[-1] + _PART_TOKENS
        end = len(tokens)
        while at < len(tokens):
            found = np.flatnonzero(tokens[at : at + _PART_TOKENS] == end_of_text_id)
            if len(found):
                end = at + int(found[0]) + 1
                break
            at += _PART_TOKENS
        bounds.append(end)
    return bounds


@dataclass(frozen=True)
class _Index:
    dtype: str
    lengths: NDArray[np.int32]
    pointers: NDArray[np.int64]


def _index(part: Part) -> _Index:
    assert part.index is not None
    path = part.index
    data = path.read_bytes()
    head = len(_MAGIC) + _HEADER.size
    try:
        if data[: len(_MAGIC)] != _MAGIC:
            raise ValueError("it does not begin with `MMIDIDX`")
        version, code, sequences, _ = _HEADER.unpack_from(data, len(_MAGIC))
        if version != 1 or code not in _TYPES:
            raise ValueError(f"version {version}, type {code}")
        lengths = np.frombuffer(data, dtype="<i4", count=sequences, offset=head)
        pointers = np.frombuffer(data, dtype="<i8", count=sequences, offset=head + 4 * sequences)
        size, width = part.path.stat().st_size, np.dtype(_TYPES[code]).itemsize
        if sequences and not (
            int(lengths.min()) >= 0 and int(pointers.min()) >= 0 and int((pointers + lengths * width).max()) <= size
        ):
            raise ValueError(f"it points outside `{part.path.name}`")
    except (ValueError, struct.error) as error:
        raise InputError(
            f"`{path}` cannot be read as Megatron's index: {error}", hint="check where it came from"
        ) from error
    return _Index(_TYPES[code], lengths, pointers)


def _sequence_bounds(part: Part) -> list[int]:
    lengths = _index(part).lengths
    number = np.cumsum(lengths, dtype=np.int64) // _PART_TOKENS
    cuts = (np.flatnonzero(number[1:] != number[:-1]) + 1).tolist() if len(lengths) else []
    return [0, *cuts, len(lengths)] if len(lengths) else [0]


def _sequences(part: Part, end_of_text_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Read Megatron sequences as documents, adding an end of text to each that has none."""
    index = _index(part)
    width = np.dtype(index.dtype).itemsize
    found: list[NDArray[np.int64]] = []
    with part.path.open("rb") as file:
        for length, pointer in zip(
            index.lengths[part.start : part.end], index.pointers[part.start : part.end], strict=True
        ):
            file.seek(int(pointer))
            ids = np.frombuffer(file.read(int(length) * width), dtype=index.dtype).astype(np.int64)
            if not len(ids) or ids[-1] != end_of_text_id:
                ids = np.append(ids, end_of_text_id)
            found.append(ids)
    lengths = np.array([len(ids) for ids in found], dtype=np.int64)
    return np.concatenate([np.zeros(0, dtype=np.int64), *found]), lengths
