"""Compressed text (.gz, .zst, .xz), detected by its first bytes and limited in size."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from alm.errors import InputError, shell
from alm.files.read import readable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ_BYTES = 1 << 20
_COMPRESSIONS = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd", ".xz": b"\xfd7zXZ\x00"}
_MAGIC_BYTES = 6
_UNPACKED_BYTES = 1 << 30  # any file may unpack to this many bytes
_UNPACKED_TIMES = 500  # or to this many times its own size: text compresses 3 to 30 times


def suffix(path: Path) -> str:
    """Return the suffix without the one of compression: `.txt` for `book.txt.gz`."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in _COMPRESSIONS else name.suffix


def compression(path: Path) -> str | None:
    """Detect compression by the first bytes of the file, else by its name: `.gz`, `.zst`, `.xz` or None."""
    with path.open("rb") as file:
        head = file.read(_MAGIC_BYTES)
    for ending, magic in _COMPRESSIONS.items():
        if head.startswith(magic):
            return ending
    ending = path.suffix.lower()
    return ending if ending in _COMPRESSIONS else None


@contextlib.contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for reading, decompressed if its first bytes or its name say .gz, .zst or .xz.

    A file that unpacks to far more than text does is refused as damaged once that limit is reached.
    """
    with readable(path), contextlib.ExitStack() as stack:
        packed = compression(path)
        try:
            yield stack.enter_context(_unpacking(path, packed))
        except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
            raise _damaged(path, error, packed) from error
        except OSError as error:
            if error.errno is not None or packed != ".zst":
                raise
            raise _damaged(path, error, packed) from error


def _damaged(path: Path, error: Exception, packed: str | None) -> InputError:
    program = {".zst": "zstd", ".xz": "xz"}.get(packed or "", "gzip")
    return InputError(f"`{path}` is damaged: {error}", hint=f"run `{shell(program, '-t', path)}`")


@contextlib.contextmanager
def _unpacking(path: Path, packed: str | None) -> Iterator[BinaryIO]:
    with contextlib.ExitStack() as stack:
        file: BinaryIO = stack.enter_context(path.open("rb"))
        if packed is not None:
            unpacked = stack.enter_context(contextlib.closing(_unpacked(file, packed)))
            bounded = _Bounded(unpacked, path, max(_UNPACKED_BYTES, _UNPACKED_TIMES * path.stat().st_size))
            file = stack.enter_context(io.BufferedReader(bounded, _READ_BYTES))
        yield file


def _unpacked(file: BinaryIO, packed: str) -> io.RawIOBase:
    if packed == ".gz":
        return cast("io.RawIOBase", gzip.GzipFile(fileobj=file, mode="rb"))
    if packed == ".xz":
        return cast("io.RawIOBase", lzma.LZMAFile(file))
    from pyarrow import CompressedInputStream, PythonFile

    return cast("io.RawIOBase", CompressedInputStream(PythonFile(file, mode="r"), "zstd"))


class _Bounded(io.RawIOBase):
    """The first `most` bytes of `file`; `InputError` at a read beyond them."""

    def __init__(self, file: io.RawIOBase, path: Path, most: int) -> None:
        self._file = file
        self._path = path
        self._most = self._left = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        number = self._file.readinto(buffer) or 0
        self._left -= number
        if self._left < 0:
            raise InputError(
                f"`{self._path}` is damaged: it unpacks to more than {self._most:,} bytes",
                hint="if the file is as expected, unpack it by hand and use the unpacked file",
            )
        return number

    def readall(self) -> bytes:
        # The inherited method reads only 8 KiB at a time.
        return b"".join(chunks(cast("Readable", self)))


class Readable(Protocol):
    """Anything that bytes can be read from."""

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes, none at the end."""
        ...


def chunks(file: Readable, size: int = _READ_BYTES) -> Iterator[bytes]:
    """Yield the rest of `file` in pieces of at most `size` bytes."""
    while data := file.read(size):
        yield bytes(data)
