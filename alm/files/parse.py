"""JSON and arrays from untrusted files: parsed in one place, with limits.

Bytes, depth and digits are checked before values are built. All of alm reads such files through this module, and YAML
through `alm.config.yaml_files`; a test of the source checks that. Refused input raises a `ValueError` with a reason in
words, or an error of alm that also names the file.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from alm.errors import InputError, shell
from alm.files.read import readable, regular

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

MOST_BYTES = 256 << 20  # metadata of a corpus of a billion documents has a few MB
# A value takes up to a hundred bytes of memory. Metadata has a hash for each file, so more than 16 bytes per value:
# no valid metadata within MOST_BYTES exceeds this limit.
MOST_VALUES = MOST_BYTES // 16
MOST_DEPTH = 64
MOST_DIGITS = 19  # of an integer: int64
_LEAST_INT, _MOST_INT = -(1 << 63), (1 << 64) - 1
_NUMBERS_SHOWN = 20
# Parts of a number that may be too large, once all digits are 0. They are searched for in the complete text, because
# a Python function called for each number is slow.
_DIGITS = bytes.maketrans(b"0123456789E", b"0000000000e")
_LONG, _HIGH = b"0" * MOST_DIGITS, (b"0e000", b"0e+000")
_NPY_MAGIC = b"\x93NUMPY\x01\x00"
_NPY_HEADER = re.compile(
    r"\{'descr': ('[^'\\]{1,20}'|\[[^\]\\]{1,500}\]), 'fortran_order': False, "
    r"'shape': \(((?:[0-9]{1,15}, ?)*(?:[0-9]{1,15})?)\), \} *\n",
    re.ASCII,
)
_CONTAINERS = frozenset({dict, list})
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(
    data: bytes | str,
    *,
    allow_nan: bool = False,
    allow_surrogates: bool = False,
    unique_keys: bool = True,
    most_values: int | None = None,
) -> Any:  # Any: JSON
    """Parse JSON (UTF-8). `ValueError` for anything else, for numbers beyond 64 bits and for deep nesting.

    Also refused: more than `most_values` values (`MOST_VALUES` by default), a key given twice if `unique_keys`, NaN and
    infinities, which JSON does not have, unless `allow_nan`, and halves of surrogate pairs, which are not text, unless
    `allow_surrogates`.
    """
    if isinstance(data, str):
        text, data = data, data.encode("utf-8", "surrogatepass")
    else:
        text = _decoded(data)
    brackets = data.count(b"[") + data.count(b"{")
    most_values = MOST_VALUES if most_values is None else most_values
    if brackets + data.count(b",") > most_values:
        raise ValueError(f"it may hold more than {most_values:,} values")
    is_wary = _has_suspects(data.translate(_DIGITS))
    try:
        value = _DECODERS[allow_nan, unique_keys, is_wary](text)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MOST_DEPTH} levels") from None
    if brackets > MOST_DEPTH:
        check_depth(value)
    if not allow_surrogates and b"\\u" in data and _SURROGATE.search(text):
        _check_surrogates(value)
    return value


def parse_row(data: bytes | str) -> Any:  # Any: JSON
    """Parse a row of a user's data, of which only text is used: all other values may be anything.

    `ValueError` for anything but JSON (UTF-8), and for nesting or a number that would take too long.
    """
    try:
        return _decode_row(data if isinstance(data, str) else _decoded(data))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _has_suspects(digits: bytes) -> bool:
    """Whether a number may be too large. As many digits after a decimal point are common, and harmless."""
    at = digits.find(_LONG)
    while at >= 0:
        if digits[at - 1 : at] != b".":
            return True
        at = digits.find(_LONG, at + len(_LONG))
    return any(part in digits for part in _HIGH)


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: byte 0x{data[error.start]:02X} at offset {error.start:,}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key `{twice[:_NUMBERS_SHOWN]}` is given twice")
    return found


class RepeatedKeys(dict[str, Any]):  # Any: JSON
    """A JSON object in which the keys `repeated` are given more than once; the last value counts."""

    repeated: frozenset[str]


def _row_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    marked = RepeatedKeys(found)
    marked.repeated = frozenset(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    return marked


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


# Not strict: raw control characters in strings do no harm, because cleaning removes them. The same as for JSON lines.
_decode_row = json.JSONDecoder(strict=False).decode
# For the rows of a corpus, in which a key given twice may be text that would be lost.
ROW_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_row_object)
_DECODERS = {
    (allow_nan, unique_keys, is_wary): json.JSONDecoder(
        object_pairs_hook=_object if unique_keys else None,  # called for each object: half of the time of reading rows
        parse_int=_integer if is_wary else None,
        parse_float=_float if is_wary else None,
        parse_constant=None if allow_nan else _refuse_constant,
    ).decode
    for allow_nan in (False, True)
    for unique_keys in (False, True)
    for is_wary in (False, True)
}


def _check_surrogates(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is not text") from None


def check_depth(value: object, *, most: int = MOST_DEPTH) -> None:
    """Raise `ValueError` if lists and dictionaries are nested deeper than `most`."""
    level: list[Any] = [value]
    for _ in range(most):
        inside = (item.values() if type(item) is dict else item for item in level if type(item) in _CONTAINERS)
        level = [inner for items in inside for inner in items if type(inner) in _CONTAINERS]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {most} levels")


def bounded_bytes(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """Read the bytes of the file `path`; `InputError` if it cannot be read or has more than `most`."""
    with readable(path), regular(path).open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise InputError(
            f"`{path}` has more than {most:,} bytes, which no file of its kind has",
            hint=f"run `{shell('ls', '-l', path)}` to see what it is",
        )
    return data


def read_json(
    path: Path, *, most: int = MOST_BYTES, most_values: int | None = None, allow_nan: bool = False
) -> Any:  # Any: JSON
    """Read the JSON value in the file `path`; `InputError` with the reason if that fails.

    `most` and `most_values` limit the bytes and values of the file.
    """
    data = bounded_bytes(path, most=most)
    try:
        return parse_json(data, allow_nan=allow_nan, most_values=most_values)
    except ValueError as error:
        hint = f"run `{shell('head', '-c', '200', path)}` to see what it is"
        raise InputError(f"`{path}` is not JSON: {error}", hint=hint) from error


def array(path: Path, *, dtype: DTypeLike, dimensions: int | None = None, mapped: bool = False) -> NDArray[Any]:
    """Read the array in the NPY file `path`, mapped or into memory; `ValueError` if it is not one of `dtype`.

    Never unpickles. The header is compared with the size of the file before memory is allocated.
    """
    import numpy as np
    from numpy.lib import format as npy

    wanted = np.dtype(dtype)
    with readable(path), regular(path).open("rb") as file:
        try:
            found, shape, start = _header(file)
        except ValueError as error:
            raise ValueError(f"`{path}` is not an array of alm: {error}") from None
        size = os.fstat(file.fileno()).st_size
    if found != repr(npy.dtype_to_descr(wanted)):
        raise ValueError(f"`{path}` holds {found}, not {wanted}")
    count: int = math.prod(shape)
    expected = start + wanted.itemsize * count
    if size != expected:
        raise ValueError(f"`{path}` has {size:,} bytes, its header says {expected:,}")
    if dimensions is not None and len(shape) != dimensions:
        raise ValueError(f"`{path}` has {len(shape)} dimensions, not {dimensions}")
    with readable(path):
        loaded: NDArray[Any] = np.load(path, mmap_mode="r" if mapped and count else None, allow_pickle=False)
    return loaded


def _header(file: BinaryIO) -> tuple[str, tuple[int, ...], int]:
    """Parse the header: type, shape, and the offset of the values. NumPy would evaluate it as a Python literal."""
    magic = file.read(len(_NPY_MAGIC))
    if magic != _NPY_MAGIC:
        raise ValueError("it does not begin as an NPY file of version 1")
    length = int.from_bytes(file.read(2), "little")
    match = _NPY_HEADER.fullmatch(file.read(length).decode("latin-1"))
    if match is None:
        raise ValueError("its header is not that of a plain array")
    return match[1], tuple(int(size) for size in match[2].split(",") if size.strip()), file.tell()


def raw_array(path: Path, *, dtype: DTypeLike) -> NDArray[Any]:
    """Read numbers of `dtype` from `path`, a file without a header; `ValueError` if its size does not divide evenly."""
    import numpy as np

    width = np.dtype(dtype).itemsize
    with readable(path):
        size = regular(path).stat().st_size
        if size % width:
            raise ValueError(f"`{path}` has {size:,} bytes, not a multiple of {width}")
        return np.fromfile(path, dtype=dtype)
