"""The header of a GGUF file from a stranger: settings and places of tensors, checked before memory is taken for them.

Every count, length and offset is compared with the size of the file first. Descriptions of the model for people are
skipped. The tensors are read later, one at a time.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from alm import shown
from alm.errors import InputError, shell
from alm.files import readable, regular

if TYPE_CHECKING:
    from alm.export.targets._gguf_model import Numbers

MAGIC = b"GGUF"
DTYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
"""Types of numbers that alm reads, by their names in the library `gguf`."""

_VERSIONS = (2, 3)
_SHOWN = 60
# Limits that no model comes close to: the largest vocabularies have 300,000 tokens and 600,000 merges.
_MOST_SETTINGS, _MOST_TENSORS, _MOST_DIMENSIONS, _MOST_NUMBERS = 4096, 1 << 16, 4, 1 << 44
_NAME_BYTES, _TEXT_BYTES, _MOST_ITEMS, _MOST_HEADER = 256, 1 << 20, 1 << 20, 1 << 28
_READ_BYTES = 16 << 20  # of fp32 numbers at a time
_GENERAL = "general."
_KEPT = ("general.architecture", "general.alignment", "general.sampling.")

_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", _BOOL: "<?", 10: "<Q", 11: "<q", 12: "<d"}
"""Format of each type of a setting by its number in the file."""


@dataclass(frozen=True)
class Stored:
    """One tensor: its shape as in NumPy, the name of its type, and its bytes from `start`, counted in the file."""

    shape: tuple[int, ...]
    dtype: str
    start: int
    bytes: int


@dataclass(frozen=True)
class Header:
    """Settings and tensors of the file at `path`. A number of 32 bits is the shortest decimal that means the same."""

    path: Path
    settings: dict[str, Any]  # Any: text, a number, a flag, or a list of them
    tensors: dict[str, Stored]

    def read(self, name: str) -> Numbers:
        """Read the tensor `name`, fp32, in parts: what the library computes with takes several times a part."""
        import gguf

        stored = self.tensors[name]
        kind = gguf.GGMLQuantizationType[stored.dtype]
        rows = math.prod(stored.shape[:-1])
        values: Numbers = np.empty((rows, stored.shape[-1]), dtype=np.float32)
        row_bytes, step = stored.bytes // rows, max(1, _READ_BYTES // values[:1].nbytes)
        with readable(self.path), self.path.open("rb") as file:
            file.seek(stored.start)
            for start in range(0, rows, step):
                part = values[start : start + step]
                data = np.fromfile(file, dtype=np.uint8, count=len(part) * row_bytes)
                if data.size != len(part) * row_bytes:
                    raise damaged(self.path, f"`{name}` ends before its {stored.bytes:,} bytes do")
                with np.errstate(all="ignore"):  # numbers that are not finite are refused later
                    part[:] = gguf.quants.dequantize(data.reshape(len(part), -1), kind)
        return values.reshape(stored.shape)


def damaged(path: Path, reason: str) -> InputError:
    """Make the error for a file that does not hold what it says."""
    return InputError(
        f"`{path}` is damaged: {reason}", hint=f"run `{shell('ls', '-l', path)}`, and fetch the file again"
    )


def read_header(path: Path) -> Header:
    """Read the header of `path`; `InputError` if it is another kind of file, is damaged, or has unsupported numbers."""
    with readable(path), regular(path).open("rb") as file:
        return _Reading(path, file, os.fstat(file.fileno()).st_size).header()


class _Reading:
    """A file being read, and how many bytes and items of lists may still come."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self._path, self._file, self._size = path, file, size
        self._left = min(size, _MOST_HEADER)
        self._items = 2 * _MOST_ITEMS

    def header(self) -> Header:
        self._check_beginning()
        tensors, settings = self._number("<Q"), self._number("<Q")
        if settings > _MOST_SETTINGS or tensors > _MOST_TENSORS:
            raise self._fault(f"it says that it has {settings:,} settings and {tensors:,} tensors")
        found = self._settings(settings)
        alignment = found.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self._fault(f"`general.alignment` is {_short(alignment)}, not a power of two")
        places = list(self._places(tensors))
        start = -(-self._file.tell() // alignment) * alignment
        return Header(self._path, found, self._checked(places, start, alignment))

    def _check_beginning(self) -> None:
        magic = self._file.read(len(MAGIC))
        self._left -= len(MAGIC)
        if magic != MAGIC:
            hint = f"run `{shell('head', '-c', '200', self._path)}` to see what it is"
            raise InputError(f"`{self._path}` is not a GGUF file: it begins with {magic!r}", hint=hint)
        version = self._number("<I")
        if version not in _VERSIONS:
            is_swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
            what = "is written for big-endian machines" if is_swapped else f"has version {version:,} of GGUF"
            raise InputError(
                f"`{self._path}` {what}, and alm reads versions 2 and 3 for little-endian machines",
                hint="convert the model again with `convert_hf_to_gguf.py` of llama.cpp",
            )

    def _fault(self, reason: str) -> InputError:
        return damaged(self._path, reason)

    def _bytes(self, count: int) -> bytes:
        """Read `count` bytes of the header, which must be there."""
        self._take(count)
        data = self._file.read(count)
        if len(data) < count:
            raise self._fault("its header ends too early")
        return data

    def _take(self, count: int) -> None:
        if count > self._left:
            limit = (
                "the file ends" if self._size <= _MOST_HEADER else f"its header has more than {_MOST_HEADER:,} bytes"
            )
            at = self._file.tell()
            raise self._fault(f"{limit} amid its header, at byte {at:,}")
        self._left -= count

    def _skip(self, count: int) -> None:
        self._take(count)
        self._file.seek(count, os.SEEK_CUR)

    def _number(self, form: str) -> Any:  # Any: int, float or bool
        (value,) = struct.unpack(form, self._bytes(struct.calcsize(form)))
        return float(str(np.float32(value))) if form == "<f" else value

    def _text(self, most: int, what: str) -> str:
        length = self._number("<Q")
        if length > most:
            raise self._fault(f"{what} has {length:,} bytes, more than {most:,}")
        data = self._bytes(length)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self._fault(f"{what} is not UTF-8: {shown.reason(error)}") from None

    def _settings(self, count: int) -> dict[str, Any]:  # Any: as in Header
        found: dict[str, Any] = {}
        seen: set[str] = set()
        for number in range(count):
            key = self._text(_NAME_BYTES, f"the name of setting {number}")
            if key in seen:
                raise self._fault(f"it sets {_short(key)} twice")
            seen.add(key)
            is_kept = not key.startswith(_GENERAL) or key.startswith(_KEPT)
            value = self._value(self._number("<I"), key, is_kept)
            if is_kept:
                found[key] = value
        return found

    def _value(self, kind: int, key: str, is_kept: bool) -> Any:  # Any: as in Header
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._text(_TEXT_BYTES, _short(key)) if is_kept else self._skip_texts(1)
        if kind != _ARRAY:
            raise self._fault(f"{_short(key)} has the unknown type {kind}")
        kind, count = self._number("<I"), self._number("<Q")
        self._items -= count
        if count > _MOST_ITEMS or self._items < 0:
            raise self._fault(f"{_short(key)} lists {count:,} values")
        if kind == _STRING:
            what = f"a text of {_short(key)}"
            return [self._text(_TEXT_BYTES, what) for _ in range(count)] if is_kept else self._skip_texts(count)
        if kind not in _SCALARS:
            raise self._fault(f"{_short(key)} is a list of the type {kind}")
        data = self._bytes(count * struct.calcsize(_SCALARS[kind]))
        return np.frombuffer(data, dtype=_SCALARS[kind]).tolist() if is_kept else None

    def _skip_texts(self, count: int) -> None:
        for _ in range(count):
            self._skip(self._number("<Q"))

    def _places(self, count: int) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
        """Yield name, shape as in NumPy, type and offset of each tensor, as the file has them."""
        for number in range(count):
            name = self._text(_NAME_BYTES, f"the name of tensor {number}")
            dimensions = self._number("<I")
            if not 1 <= dimensions <= _MOST_DIMENSIONS:
                raise self._fault(f"{_short(name)} has {dimensions:,} dimensions")
            shape = struct.unpack(f"<{dimensions}Q", self._bytes(8 * dimensions))
            yield name, shape[::-1], self._number("<I"), self._number("<Q")

    def _checked(
        self, places: list[tuple[str, tuple[int, ...], int, int]], start: int, alignment: int
    ) -> dict[str, Stored]:
        """Compare every tensor with the file and with the others; `start` is where the first begins."""
        found: dict[str, Stored] = {}
        for name, shape, kind, offset in places:
            if name in found:
                raise self._fault(f"it stores {_short(name)} twice")
            if not 1 <= math.prod(shape) <= _MOST_NUMBERS:
                raise self._fault(f"{_short(name)} is {list(shape)}, which holds {math.prod(shape):,} numbers")
            dtype, size = self._sized(name, shape, kind)
            end = start + offset + size
            if offset % alignment or end > self._size:
                raise self._fault(f"{_short(name)} ends at byte {end:,} of a file of {self._size:,} bytes")
            found[name] = Stored(shape, dtype, start + offset, size)
        for (_, first), (name, second) in pairwise(sorted(found.items(), key=lambda item: item[1].start)):
            if first.start + first.bytes > second.start:
                raise self._fault(f"{_short(name)} lies over another tensor")
        return found

    def _sized(self, name: str, shape: tuple[int, ...], kind: int) -> tuple[str, int]:
        """Return the name of the type and the number of bytes of a tensor."""
        import gguf

        dtypes = {int(found): (found.name, *sizes) for found, sizes in gguf.GGML_QUANT_SIZES.items()}
        dtype, block, size = dtypes.get(kind, (str(kind), 1, 1))
        if dtype not in DTYPES:
            again = shell("llama-quantize", "--allow-requantize", self._path, f"{self._path.stem}-q8_0.gguf", "Q8_0")
            raise InputError(
                f"`{self._path}` stores {_short(name)} as {dtype}, but alm reads only {', '.join(DTYPES)}",
                hint=f"run `{again}` of llama.cpp, and import what it writes",
            )
        if shape[-1] % block:
            raise self._fault(f"{_short(name)} has rows of {shape[-1]:,}, not whole blocks of {block} in {dtype}")
        return dtype, math.prod(shape) // block * size


def _short(value: object) -> str:
    return f"`{shown.line(str(value))[:_SHOWN]}`"
