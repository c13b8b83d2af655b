"""Shards as arrays: memory-mapped, which takes no file descriptor here, or read again for each slice."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alm.files import readable

# Linux lets a process map 65,530 areas (`vm.max_map_count`), and libraries need some.
_MOST_MAPPED = 32_768
_READ, _SHARED = 1, 1  # PROT_READ and MAP_SHARED of mmap(2), the same on Linux and macOS


@dataclass(frozen=True)
class Unmapped:
    """An array in a file, which is opened for each slice."""

    path: Path
    dtype: np.dtype[Any]

    def __getitem__(self, part: slice) -> NDArray[Any]:
        start, stop = int(part.start), int(part.stop)
        with readable(self.path):
            offset = start * self.dtype.itemsize
            return np.fromfile(self.path, dtype=self.dtype, count=max(stop - start, 0), offset=offset)


def arrays(paths: Sequence[Path], *, dtype: np.dtype[Any]) -> list[NDArray[Any] | Unmapped]:
    """Return the array of each file: mapped, as far as a process can map areas, and `Unmapped` beyond that."""
    found: list[NDArray[Any] | Unmapped] = []
    for number, path in enumerate(paths):
        array = mapped(path, dtype=dtype) if number < _MOST_MAPPED else None
        found.append(Unmapped(path, dtype) if array is None else array)
    return found


def mapped(path: Path, *, dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Map the array in `path`, whose pages are read on first access. Return None if no more can be mapped.

    `mmap.mmap` keeps a file descriptor per file (before Python 3.13 always), and most shells allow 1,024. The mapping
    itself needs none, so this calls mmap(2) directly. On Windows, none is kept.
    """
    with readable(path):
        if os.name == "nt":
            return np.asarray(np.memmap(path, dtype=dtype, mode="r"))
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size // dtype.itemsize * dtype.itemsize
            if not size:
                return np.empty(0, dtype=dtype)
            address = _mmap()(None, size, _READ, _SHARED, file.fileno(), 0)
            if address == ctypes.c_void_p(-1).value:
                number = ctypes.get_errno()
                if number == errno.ENOMEM:
                    return None
                raise OSError(number, os.strerror(number))
    area = (ctypes.c_char * size).from_address(address)
    # Arrays and their slices keep the area alive. At exit, the system unmaps it.
    weakref.finalize(area, _libc().munmap, ctypes.c_void_p(address), ctypes.c_size_t(size)).atexit = False
    array: NDArray[Any] = np.frombuffer(memoryview(area), dtype=dtype)
    array.flags.writeable = False
    return array


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@functools.cache
def _mmap() -> Any:  # Any: ctypes has no better type
    function = _libc().mmap
    function.restype = ctypes.c_void_p
    # The last argument is off_t, a long wherever PyTorch runs. It is always 0 here.
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    return function
