"""Text files of any encoding as UTF-8 bytes, so that the formats handle only one encoding."""

from __future__ import annotations

import codecs
import contextlib
import functools
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from alm.errors import InputError
from alm.files import chunks, compression, not_utf8, open_binary

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

AUTO = "auto"
# The longer marks come first: the UTF-32 mark begins with the UTF-16 mark.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
_MARK_BYTES = 4
_CHUNK_BYTES = 1 << 18


class EncodingError(InputError):
    """Bytes that are not text in the expected encoding."""


def is_known(encoding: str) -> bool:
    """Whether `encoding` is `auto` or the name of a text encoding."""
    try:
        "x".encode("utf-8" if encoding == AUTO else encoding)
    except (LookupError, ValueError):
        return False
    return True


def of_head(head: bytes, encoding: str) -> str:
    """Return the Python name of the encoding of a file that begins with `head`: that of its byte order mark, if any."""
    given = "utf-8" if encoding == AUTO else codecs.lookup(encoding).name
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), given)


def of_file(path: Path, encoding: str) -> str:
    """Return the Python name of the encoding of a file. An `encoding` is not for files that are UTF-8."""
    with open_binary(path) as file:
        name = of_head(file.read(_MARK_BYTES), encoding)
    if not _may_be_utf8(name):
        return name
    stat = path.stat()
    return "utf-8" if _is_utf8(path, stat.st_size, stat.st_mtime_ns) else name


def of_data(data: bytes, encoding: str) -> str:
    """Return the Python name of the encoding of a file with the contents `data`, as `of_file` does."""
    name = of_head(data, encoding)
    return "utf-8" if _may_be_utf8(name) and _are_utf8([data]) else name


def _may_be_utf8(name: str) -> bool:
    """Whether a file that is said to be in the encoding `name` may be UTF-8: not one of two bytes a character."""
    return not name.startswith(("utf-8", "utf-16", "utf-32"))


@functools.lru_cache(maxsize=1024)
def _is_utf8(path: Path, size: int, time_ns: int) -> bool:
    with open_binary(path) as file:
        return _are_utf8(chunks(file))


def _are_utf8(data: Iterable[bytes]) -> bool:
    """Whether `data` is UTF-8 with characters beyond ASCII, which say nothing about an encoding."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_ascii = True
    try:
        for chunk in data:
            is_ascii = is_ascii and chunk.isascii()
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return not is_ascii


def begin_of_text(head: bytes, encoding: str, *, is_all: bool) -> str | None:
    """Decode the beginning `head` of a file; None if it is not text. Unless it `is_all`, `head` may end within a
    character.
    """
    name = of_head(head, encoding)
    for each in ("utf-8", name) if _may_be_utf8(name) else (name,):
        with contextlib.suppress(UnicodeError):
            return codecs.getincrementaldecoder(each)().decode(head, final=is_all)
    return None


def is_plain_utf8(path: Path, encoding: str) -> bool:
    """Whether the file is stored as uncompressed UTF-8, so that reading can start at any line."""
    return compression(path) is None and of_file(path, encoding) in ("utf-8", "utf-8-sig")


@contextlib.contextmanager
def open_utf8(path: Path, encoding: str, *, start: int = 0) -> Iterator[tuple[BinaryIO, int]]:
    """Open the file, decompressed, as UTF-8 without a byte order mark. Yield it and the offset at which reading starts.

    The offset is `start`, which must be 0 unless `is_plain_utf8`, or that after the mark. Reading raises
    `EncodingError` for bytes that do not match the encoding. UTF-8 is passed on unchecked: its decoder raises an error.
    """
    with open_binary(path) as file:
        if start:
            file.seek(start)
            yield file, start
            return
        head = cast("io.BufferedReader", file).peek(_MARK_BYTES)[:_MARK_BYTES]
        name = of_file(path, encoding)
        if name not in ("utf-8", "utf-8-sig"):
            yield io.BufferedReader(_Transcoded(file, path, name), _CHUNK_BYTES), 0
        else:
            has_mark = head.startswith(codecs.BOM_UTF8)
            yield file, len(file.read(len(codecs.BOM_UTF8))) if has_mark else 0


def bad_utf8(path: Path, error: UnicodeDecodeError, *, offset: int) -> EncodingError:
    """Return the error for bytes that begin at `offset` of the decompressed file, for which `error` was raised."""
    said = not_utf8(path, offset=offset + error.start, byte=error.object[error.start])
    return EncodingError(said.message, hint=f"{said.hint}, or give its name: `--set sources.<name>.encoding=...`")


class _Transcoded(io.RawIOBase):
    """The contents of `file`, converted from `encoding` to UTF-8."""

    def __init__(self, file: BinaryIO, path: Path, encoding: str) -> None:
        self._file = file
        self._path = path
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._offset = 0  # of the first byte that is not decoded yet
        self._ready = b""
        self._is_ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        while not self._ready and not self._is_ended:
            self._ready = self._more()
        number = min(len(view), len(self._ready))
        view[:number] = self._ready[:number]
        self._ready = self._ready[number:]
        return number

    def _more(self) -> bytes:
        data = self._file.read(_CHUNK_BYTES)
        self._is_ended = not data
        waiting = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeError as error:
            place = self._offset + getattr(error, "start", 0)
            reason = getattr(error, "reason", str(error))
            raise EncodingError(
                f"`{self._path}` is not {self._encoding}: {reason} at offset {place:,}",
                hint="set its encoding: `--set sources.<name>.encoding=...`",
            ) from error
        self._offset += len(data) + waiting - len(self._decoder.getstate()[0])
        return text.encode("utf-8", "surrogatepass")
