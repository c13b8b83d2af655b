"""Text behind .gz, .zst and .xz, opened by what its first bytes say, and never more of it than text can be."""

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
_UNPACKED_BYTES = 1 << 30  # whatever a file unpacks to, so much is let through
_UNPACKED_TIMES = 500  # and so many times its own size: text packs 3 to 30 times


def suffix(path: Path) -> str:
    """The file's kind by name with compression set aside: `.txt` for `book.txt.gz`."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in _COMPRESSIONS else name.suffix


def compression(path: Path) -> str | None:
    """`.gz`, `.zst` or `.xz` where the file is packed so: what its first bytes say, else what its name says."""
    with path.open("rb") as file:
        head = file.read(_MAGIC_BYTES)
    for ending, magic in _COMPRESSIONS.items():
        if head.startswith(magic):
            return ending
    ending = path.suffix.lower()
    return ending if ending in _COMPRESSIONS else None


@contextlib.contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """`path` opened for reading, unpacked when its first bytes or its name say that it is .gz, .zst or .xz.

    A file that unpacks to far more than text ever does is refused as damaged when that point is reached.
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
    """What `file` holds, and an `InputError` in place of whatever follows the first `most` bytes."""

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
                hint="unpack it by hand if it is what it should be, then give that file instead",
            )
        return number

    def readall(self) -> bytes:
        # The inherited one asks for 8 KiB at a time.
        return b"".join(chunks(cast("Readable", self)))


class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""
        ...


def chunks(file: Readable, size: int = _READ_BYTES) -> Iterator[bytes]:
    """The rest of `file` in pieces of at most `size` bytes."""
    while data := file.read(size):
        yield bytes(data)
