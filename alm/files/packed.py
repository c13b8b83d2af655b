"""Compressed text (.gz, .zst, .xz), detected by its first bytes and limited in size."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from alm.errors import InputError, shell
from alm.files.read import readable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ_BYTES = 1 << 20
_COMPRESSIONS = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd", ".xz": b"\xfd7zXZ\x00"}
_MAGIC_BYTES = 6
_LONGEST_WINDOW = 31  # as with `zstd --long=31`: distances of up to 2 GiB
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
        damage: tuple[type[Exception], ...] = (
            EOFError,
            zlib.error,
            gzip.BadGzipFile,
            lzma.LZMAError,
            *_zstd_errors(packed),
        )
        try:
            yield stack.enter_context(_unpacking(path, packed))
        except damage as error:
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
        return _Streams(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ), padding=4)
    zstd = _zstd()
    options = {zstd.DecompressionParameter.window_log_max: _LONGEST_WINDOW}
    return _Streams(file, lambda: zstd.ZstdDecompressor(options=options))


def _zstd() -> ModuleType:
    """Return the module for zstd: from Python 3.14 on it is part of the standard library."""
    return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def _zstd_errors(packed: str | None) -> tuple[type[Exception], ...]:
    return (_zstd().ZstdError,) if packed == ".zst" else ()


class _Decompressor(Protocol):
    """One stream of compressed bytes."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, /, max_length: int) -> bytes: ...


class _Streams(io.RawIOBase):
    """The content of all compressed streams of `file`, one after the other.

    The readers of the standard library end without an error at whatever they cannot read after the first stream.
    """

    def __init__(self, file: BinaryIO, new: Callable[[], _Decompressor], *, padding: int = 0) -> None:
        """Read streams by a decompressor each from `new`, with zeros between them in multiples of `padding` bytes."""
        self._file = file
        self._new = new
        self._padding = padding
        self._stream = new()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = b""
        while not data:
            if self._stream.eof:
                rest = self._after_stream(self._stream.unused_data)
                if not rest:
                    return 0
                self._stream = self._new()
            elif self._stream.needs_input:
                rest = self._file.read(_READ_BYTES)
                if not rest:
                    raise EOFError("it ends inside a compressed stream")
            else:
                rest = b""
            data = self._stream.decompress(rest, len(view))
        view[: len(data)] = data
        return len(data)

    def _after_stream(self, rest: bytes) -> bytes:
        """Return the first bytes of the next stream, none at the end of the file, without the padding before them."""
        padding = 0
        while True:
            rest = rest or self._file.read(_READ_BYTES)
            kept = rest.lstrip(b"\0") if self._padding else rest
            padding += len(rest) - len(kept)
            if kept or not rest:
                break
            rest = b""
        if self._padding and padding % self._padding:
            raise EOFError(f"there are {padding:,} zeros after a compressed stream, which is not a multiple of 4")
        return kept


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
