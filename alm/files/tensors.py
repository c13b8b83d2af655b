"""Tensors in safetensors files, of our own and of strangers."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm import shown
from alm.errors import InputError
from alm.files.read import readable
from alm.files.write import wrap_os_errors

if TYPE_CHECKING:
    from torch import Tensor

_HEADER_BYTES = 16 << 20
_LENGTH_BYTES = 8  # little-endian, before the header
_SYSTEM_ERROR = re.compile(r"os error (\d+)")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write `tensors` and the texts of `metadata` to `path` and to the disk.

    The library writes the texts in an order that changes from call to call, so give one if the bytes matter.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with wrap_os_errors(path):
        path.touch()
        mode = path.stat().st_mode  # the usual mode: the library would make the file private
        values = dict(metadata or {"format": "pt"})  # transformers needs `format`
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=values)
        except SafetensorError as error:  # carries the system's error only as text
            number = _SYSTEM_ERROR.search(str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        path.chmod(mode)
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def described(path: Path) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Yield name, shape and type of each tensor at `path`, as the file names it: F32, I8. `InputError` if damaged."""
    _check_header(path)
    with opened(path) as file:
        for name in file.keys():  # noqa: SIM118 - it is not a mapping
            part = file.get_slice(name)
            yield name, tuple(part.get_shape()), part.get_dtype()


def _check_header(path: Path) -> None:
    """Refuse an unreasonably long header before the library reads it."""
    with readable(path), path.open("rb") as file:
        size = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    most = min(_HEADER_BYTES, path.stat().st_size - _LENGTH_BYTES)
    if size > most:
        raise _damaged(path, f"its header has {size:,} bytes, more than {max(most, 0):,}")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:  # Any: of a library without types
    """Open the file at `path`. The library checks the offsets of tensors against the size of the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise _damaged(path, shown.reason(error)) from error


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(f"`{path}` is damaged: {reason}", hint="fetch the file again")
