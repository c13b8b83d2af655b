"""Text files as UTF-8 bytes, whatever their encoding: what reads them has one encoding to know."""

from __future__ import annotations

import codecs
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from alm.errors import InputError
from alm.files import compression, not_utf8, open_binary

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

AUTO = "auto"
# The longer marks first: that of UTF-32 begins like that of UTF-16.
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
    """Bytes that are no text in the encoding that they should have."""


def is_known(encoding: str) -> bool:
    """Whether `encoding` is `auto` or the name of an encoding of text."""
    try:
        "x".encode("utf-8" if encoding == AUTO else encoding)
    except (LookupError, ValueError):
        return False
    return True


def of_head(head: bytes, encoding: str) -> str:
    """The Python name of the encoding of a file that begins with `head`: what its byte order mark says under `auto`."""
    if encoding != AUTO:
        return codecs.lookup(encoding).name
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8")


def begin_of_text(head: bytes, encoding: str, *, is_all: bool) -> str | None:
    """The text of a file that begins with `head`; None where it is no text. Unless that `is_all`, it may end within
    a character.
    """
    try:
        return codecs.getincrementaldecoder(of_head(head, encoding))().decode(head, final=is_all)
    except UnicodeError:
        return None


def is_plain_utf8(path: Path, encoding: str) -> bool:
    """Whether the file lies on the disk as UTF-8, so that it can be read from any line on."""
    with path.open("rb") as file:
        head = file.read(_MARK_BYTES)
    return compression(path) is None and of_head(head, encoding) in ("utf-8", "utf-8-sig")


@contextlib.contextmanager
def open_utf8(path: Path, encoding: str, *, start: int = 0) -> Iterator[tuple[BinaryIO, int]]:
    """The file unpacked, as UTF-8 without a byte order mark, and the offset at which reading begins.

    That is `start`, which must be 0 unless `is_plain_utf8`, or behind the mark. A file that is not in its encoding
    raises `EncodingError` while it is read, unless it is UTF-8 already: then whoever decodes it will see.
    """
    with open_binary(path) as file:
        if start:
            file.seek(start)
            yield file, start
            return
        head = cast("io.BufferedReader", file).peek(_MARK_BYTES)[:_MARK_BYTES]
        name = of_head(head, encoding)
        if name not in ("utf-8", "utf-8-sig"):
            yield io.BufferedReader(_Transcoded(file, path, name), _CHUNK_BYTES), 0
        else:
            has_mark = head.startswith(codecs.BOM_UTF8)
            yield file, len(file.read(len(codecs.BOM_UTF8))) if has_mark else 0


def bad_utf8(path: Path, error: UnicodeDecodeError, *, offset: int) -> EncodingError:
    """The error for bytes at `offset` of the unpacked file, that `error` was raised for."""
    said = not_utf8(path, offset=offset + error.start, byte=error.object[error.start])
    return EncodingError(said.message, hint=f"{said.hint}, or give its name: `--set sources.<name>.encoding=...`")


class _Transcoded(io.RawIOBase):
    """What `file` holds in `encoding`, as UTF-8."""

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
                hint="give the encoding that it has: `--set sources.<name>.encoding=...`",
            ) from error
        self._offset += len(data) + waiting - len(self._decoder.getstate()[0])
        return text.encode("utf-8", "surrogatepass")
