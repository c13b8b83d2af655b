"""JSON and arrays from files that anybody may have written: parsed in one place, with limits.

Limits hold before anything is made of the values: bytes, depth, digits. All of alm reads such files through here, and
YAML through `alm.config.load`; a test on the source says so. What is refused is a `ValueError`
with a reason in words, or an error of alm that names the file too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from alm.errors import InputError, shell
from alm.files.read import readable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

MOST_BYTES = 256 << 20  # metadata of a corpus of a billion documents has a few MB
MOST_DEPTH = 64
MOST_DIGITS = 19  # of an integer: int64
_LEAST_INT, _MOST_INT = -(1 << 63), (1 << 64) - 1
_NUMBERS_SHOWN = 20


def parse_json(data: bytes | str, *, allow_nan: bool = False) -> Any:  # Any: JSON
    """The value in `data`. `ValueError` for anything but JSON (UTF-8) with numbers of 64 bits and sane nesting.

    NaN and infinities, which JSON does not have, are refused unless `allow_nan`.
    """
    constant = None if allow_nan else _refuse_constant
    try:
        value = json.loads(data, parse_int=_integer, parse_float=_float, parse_constant=constant)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MOST_DEPTH} levels") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: byte 0x{error.object[error.start]:02X} at offset {error.start:,}") from None
    brackets = (b"[", b"{") if isinstance(data, bytes) else ("[", "{")
    if sum(data.count(bracket) for bracket in brackets) > MOST_DEPTH:  # type: ignore[arg-type] # of one type
        check_depth(value)
    return value


def _integer(text: str) -> int:
    value = int(text) if len(text) <= MOST_DIGITS + 2 else None
    if value is None or not _LEAST_INT <= value <= _MOST_INT:
        raise ValueError(f"the number {text[:_NUMBERS_SHOWN]}... has more than 64 bits")
    return value


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:_NUMBERS_SHOWN]} is too large")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON value")


def check_depth(value: object, *, most: int = MOST_DEPTH) -> None:
    """Raise `ValueError` where lists and dictionaries are nested deeper than `most`."""
    level = [value]
    for _ in range(most + 1):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list | tuple)
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, dict | list | tuple)
        ]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {most} levels")


def bounded_bytes(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """The bytes of `path`; `InputError` where it cannot be read or has more than `most`."""
    with readable(path), path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise InputError(
            f"`{path}` has more than {most:,} bytes, which no file of its kind has",
            hint=f"run `{shell('ls', '-l', path)}` to see what it is",
        )
    return data


def read_json(path: Path, *, most: int = MOST_BYTES, allow_nan: bool = False) -> Any:  # Any: JSON
    """The JSON value in the file `path`; `InputError` with the reason where it cannot be read."""
    data = bounded_bytes(path, most=most)
    try:
        return parse_json(data, allow_nan=allow_nan)
    except ValueError as error:
        hint = f"run `{shell('head', '-c', '200', path)}` to see what it is"
        raise InputError(f"`{path}` is not JSON: {error}", hint=hint) from error


def array(path: Path, *, dtype: DTypeLike, dimensions: int | None = None, mapped: bool = False) -> NDArray[Any]:
    """The array in the NPY file `path`, mapped or in memory; `ValueError` where it is not one of `dtype`.

    Never unpickles. The header is compared with the size of the file before memory is asked for.
    """
    import numpy as np

    with readable(path), path.open("rb") as file:
        shape, found, start = _header(file)
    expected = start + int(found.itemsize) * _product(shape)
    size = path.stat().st_size
    if size != expected:
        raise ValueError(f"`{path}` has {size:,} bytes, its header says {expected:,}")
    if found != np.dtype(dtype):
        raise ValueError(f"`{path}` holds {found}, not {np.dtype(dtype)}")
    if dimensions is not None and len(shape) != dimensions:
        raise ValueError(f"`{path}` has {len(shape)} dimensions, not {dimensions}")
    loaded: NDArray[Any] = np.load(path, mmap_mode="r" if mapped and _product(shape) else None, allow_pickle=False)
    return loaded


def _header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, type and the offset of the values."""
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it is an NPY file of version {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    if is_fortran or dtype.hasobject:
        raise ValueError("it is not a plain array")
    return shape, dtype, file.tell()


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def raw_array(path: Path, *, dtype: DTypeLike) -> NDArray[Any]:
    """The numbers of `dtype` in the headerless file `path`; `ValueError` where its size is not a multiple of theirs."""
    import numpy as np

    width = np.dtype(dtype).itemsize
    with readable(path):
        size = path.stat().st_size
        if size % width:
            raise ValueError(f"`{path}` has {size:,} bytes, not a multiple of {width}")
        return np.fromfile(path, dtype=dtype)
