"""Reads the token files of other tools: plain `.bin`, llm.c's `.bin` with a header, Megatron's `.bin` with `.idx`.

Plain (nanoGPT, data/*/prepare.py): ids of one integer type, nothing else. llm.c (dev/data/data_common.py,
write_datafile): 256 int32, the first a number that names the type of the ids, the third their count; then the ids.
Megatron-LM (megatron/core/datasets/indexed_dataset.py): the index has the magic `MMIDIDX`, a version, a code for the
type of ids, the numbers of sequences and of document ends, then for each sequence its length (int32) and the byte it
starts at (int64), then the document ends, counted in sequences.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
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

_PLAIN_TYPES = {"uint16": "<u2", "uint32": "<u4", "int32": "<i4", "int64": "<i8"}
_LLMC_TYPES = {20240520: "<u2", 20240801: "<u4"}  # GPT-2 and Llama 3
_LLMC_HEADER = 1024
# Files that have the suffix, but are not plain ids.
_OTHERS = {
    b"LITPKDS": "litgpt's packed data",
    b"\x93NUMPY": "an array of NumPy",
    b"GGUF": "a model of llama.cpp",
    b"PK\x03\x04": "a zip archive, or a file of PyTorch",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
}
_FEWEST_FOR_A_GUESS = 16
_LOOKED_AT = 1 << 20  # ids
# nanoGPT: `val.bin`; llm.c: `tiny_shakespeare_val.bin`, `fineweb_val_000000.bin`.
_HELD_OUT_NAME = re.compile(r"(.*[_-])?(val|valid|validation)([_-]?\d+)?")

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Part:
    """Tokens `start` to `end` of a file of ids, or documents `start` to `end` of a Megatron file.

    `dtype` and `offset` say how and from which byte on the ids are stored; Megatron's index has its own.
    """

    path: Path
    source: str
    split: str | None
    start: int
    end: int
    dtype: str = "<u2"
    offset: int = 0

    def where(self) -> tuple[str, int, int]:
        """Return the part's place in its file, how its ids are stored, and how its split is decided."""
        return (f"{self.dtype} from {self.offset}, split by {'name' if self.split else 'hash'}", self.start, self.end)

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


def parts(paths: list[Path], *, end_of_text_id: int, vocab_size: int, dtype: str | None = None) -> Iterator[Part]:
    """Yield the parts of the files, cut between documents.

    If a file without an index is named `val` or `..._val`, it is the validation split and the others are for training.
    Otherwise the hash of each document decides. `dtype` is the integer type of plain files; it is found if absent.
    """
    has_index = [path.with_suffix(".idx").is_file() for path in paths]
    held = [
        not index and bool(_HELD_OUT_NAME.fullmatch(path.stem)) for path, index in zip(paths, has_index, strict=True)
    ]
    for path, index, is_held in zip(paths, has_index, held, strict=True):
        if index:
            part = Part(path, path.stem.removesuffix("_text_document"), None, 0, 0)
            bounds = _document_bounds(part)
        else:
            split = (VALIDATION if is_held else TRAIN) if any(held) else None
            # The source is the file name of `wiki.bin`, but the folder name of `shakespeare/train.bin`.
            name = path.parent.resolve().name if any(held) else path.stem.removesuffix("_text_document")
            part = Part(path, name, split, 0, 0, *_stored(path, dtype, vocab_size))
            bounds = _token_bounds(part, end_of_text_id)
        for start, end in pairwise(bounds):
            yield replace(part, start=start, end=end)


def read(part: Part, *, end_of_text_id: int, vocab_size: int) -> Iterator[tuple[Ids, NDArray[np.int64]]]:
    """Yield the ids of the part's documents, each with its end of text, and their lengths.

    Raises `InputError` for an id outside the tokenizer's vocabulary.
    """
    if part.index:
        ids, lengths = _documents(part, end_of_text_id)
    else:
        ids = np.array(_tokens(part)[part.start : part.end], dtype=np.int64)
        ends = np.flatnonzero(ids == end_of_text_id) + 1
        if not len(ends) or ends[-1] != len(ids):  # the file does not end with one
            ids = np.append(ids, end_of_text_id)
            ends = np.append(ends, len(ids))
        lengths = np.diff(ends, prepend=0)
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        worst = int(ids.max()) if int(ids.max()) >= vocab_size else int(ids.min())
        raise InputError(
            f"`{part.path}` holds the id {worst}, but the tokenizer has {vocab_size:,} ids",
            hint="name the tokenizer that made the ids with `--tokenizer`, and their type with `--from-dtype`",
        )
    yield ids.astype(np.int32), lengths.astype(np.int64)


def _stored(path: Path, dtype: str | None, vocab_size: int) -> tuple[str, int]:
    """Return the type of the ids of a file without an index, and the byte at which they start."""
    with path.open("rb") as file:
        head = file.read(_LLMC_HEADER)
    size = path.stat().st_size
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise InputError(f"`{path}` is {what}, not a file of token ids", hint="give nanoGPT's or llm.c's `.bin`")
    if len(head) == _LLMC_HEADER:
        magic_, _, count = struct.unpack_from("<iii", head)
        if magic_ in _LLMC_TYPES:
            found, width = _LLMC_TYPES[magic_], np.dtype(_LLMC_TYPES[magic_]).itemsize
            if size != _LLMC_HEADER + count * width:
                raise InputError(
                    f"`{path}` is damaged: its header promises {count:,} ids of {width} bytes, "
                    f"{size - _LLMC_HEADER:,} bytes follow",
                    hint=f"run `ls -l {quoted(path)}`, and get the file again",
                )
            return found, _LLMC_HEADER
    found = _PLAIN_TYPES[dtype] if dtype else _guessed(path, size, vocab_size)
    width = np.dtype(found).itemsize
    if size % width:
        raise InputError(
            f"`{path}` has {size:,} bytes: it is not a file of {np.dtype(found).name} ids",
            hint=f"run `ls -l {quoted(path)}`, and name the type of the ids with `--from-dtype`",
        )
    return found, 0


def _guessed(path: Path, size: int, vocab_size: int) -> str:
    """Return the type of the ids of a plain file: uint16 as nanoGPT writes it, unless they are wider ids.

    As uint16, wider ids have a zero or another small number after each id. As a wider type, pairs of uint16 ids are
    numbers far above the vocabulary.
    """
    for dtype in ("<i8", "<u4"):
        width = np.dtype(dtype).itemsize
        if size % width == 0 and size >= _FEWEST_FOR_A_GUESS * width:
            ids = np.memmap(path, dtype=dtype, mode="r")[:_LOOKED_AT]
            if int(ids.min()) >= 0 and int(ids.max()) < vocab_size and ids.any():
                return dtype
    return "<u2"


def _tokens(part: Part) -> NDArray[Any]:
    if part.path.stat().st_size <= part.offset:
        return np.zeros(0, dtype=part.dtype)
    return np.memmap(part.path, dtype=part.dtype, mode="r", offset=part.offset)


def _token_bounds(part: Part, end_of_text_id: int) -> list[int]:
    tokens = _tokens(part)
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
    """Megatron's index: length and first byte of each sequence, and the sequences where documents begin and end."""

    dtype: str
    lengths: NDArray[np.int32]
    pointers: NDArray[np.int64]
    documents: NDArray[np.int64]


def _index(part: Part) -> _Index:
    assert part.index is not None
    path = part.index
    data = path.read_bytes()
    head = len(_MAGIC) + _HEADER.size
    try:
        if data[: len(_MAGIC)] != _MAGIC:
            raise ValueError("it does not begin with `MMIDIDX`")
        version, code, sequences, ends = _HEADER.unpack_from(data, len(_MAGIC))
        if version != 1 or code not in _TYPES:
            raise ValueError(f"version {version}, type {code}")
        lengths = np.frombuffer(data, dtype="<i4", count=sequences, offset=head)
        pointers = np.frombuffer(data, dtype="<i8", count=sequences, offset=head + 4 * sequences)
        size, width = part.path.stat().st_size, np.dtype(_TYPES[code]).itemsize
        if sequences and not (
            int(lengths.min()) >= 0 and int(pointers.min()) >= 0 and int((pointers + lengths * width).max()) <= size
        ):
            raise ValueError(f"it points outside `{part.path.name}`")
        documents = np.frombuffer(data, dtype="<i8", count=ends, offset=head + 12 * sequences)
        if ends < 2:  # a file that names no documents: each sequence is one
            documents = np.arange(sequences + 1)
        if documents[0] != 0 or documents[-1] != sequences or (np.diff(documents) < 0).any():
            raise ValueError("its document ends do not match its sequences")
    except (ValueError, struct.error) as error:
        raise InputError(
            f"`{path}` cannot be read as Megatron's index: {error}", hint="check where it came from"
        ) from error
    return _Index(_TYPES[code], lengths, pointers, documents)


def _document_bounds(part: Part) -> list[int]:
    """Return the documents at which the parts of a Megatron file begin and end."""
    index = _index(part)
    tokens = np.concatenate([[0], np.cumsum(index.lengths, dtype=np.int64)])[index.documents[1:]]
    number = tokens // _PART_TOKENS
    cuts = (np.flatnonzero(number[1:] != number[:-1]) + 1).tolist()
    return [0, *cuts, len(tokens)] if len(tokens) else [0]


def _documents(part: Part, end_of_text_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Read Megatron documents, the sequences of each joined, with an end of text where there is none."""
    index = _index(part)
    width = np.dtype(index.dtype).itemsize
    found: list[NDArray[np.int64]] = []
    with part.path.open("rb") as file:
        for first, end in pairwise(index.documents[part.start : part.end + 1].tolist()):
            sequences = [np.zeros(0, dtype=np.int64)]
            for length, pointer in zip(index.lengths[first:end], index.pointers[first:end], strict=True):
                file.seek(int(pointer))
                sequences.append(np.frombuffer(file.read(int(length) * width), dtype=index.dtype).astype(np.int64))
            ids = np.concatenate(sequences)
            if not len(ids) or ids[-1] != end_of_text_id:
                ids = np.append(ids, end_of_text_id)
            found.append(ids)
    lengths = np.array([len(ids) for ids in found], dtype=np.int64)
    return np.concatenate([np.zeros(0, dtype=np.int64), *found]), lengths
