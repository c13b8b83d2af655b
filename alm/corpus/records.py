"""The clean text format: documents separated by a mark line, exact for every document.

A record is the document, a newline, the line `<|endoftext|>`, and a newline. A line of the document that
looks like the mark (any number of backslashes, then the mark) gets one more backslash when it is written
and loses it when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from alm.files import Readable, chunks

MARK = "<|endoftext|>"
END = f"\n{MARK}\n".encode()
_ESCAPABLE = re.compile(rf"^(\\*{re.escape(MARK)})$", re.MULTILINE)
_ESCAPED = re.compile(rf"^\\(\\*{re.escape(MARK)})$", re.MULTILINE)
_CHUNK_BYTES = 1 << 22


def escape(text: str) -> str:
    """Add one backslash to every line of `text` that looks like the mark."""
    return _ESCAPABLE.sub(r"\\\1", text) if MARK in text else text


def unescape(text: str) -> str:
    """Undo `escape`."""
    return _ESCAPED.sub(r"\1", text) if MARK in text else text


def record(text: str) -> bytes:
    """Return the record of a document."""
    return escape(text).encode("utf-8") + END


def record_of(text: str, data: bytes) -> bytes:
    """Return the record of a `text` whose UTF-8 is `data`, without encoding it again."""
    return record(text) if MARK in text else data + END


def framed(raw: bytes) -> bytes:
    """Return the complete record for the bytes that `read_records` yields."""
    return raw + END


def _find_end(data: bytes | bytearray, start: int) -> tuple[int, int] | None:
    """Return the start and the end of the next end of a record from `start` on: a newline, the mark, a line end."""
    while (at := data.find(END[:-1], start)) >= 0:
        end = at + len(END) - 1
        if data.startswith((b"\n", b"\r\n"), end):
            return at, data.index(b"\n", end) + 1
        start = at + 1
    return None


def _without_return(text: bytes | bytearray) -> bytes:
    return bytes(text[:-1] if text.endswith(b"\r") else text)


def ends_of(file: Readable) -> Iterator[int]:
    """Yield the offset after each record of `file` that ends with a mark."""
    position = 0
    tail = b"\n"  # so that a mark on the first line is found like any other
    for chunk in chunks(file, _CHUNK_BYTES):
        data = tail + chunk
        searched = 0
        while (mark := _find_end(data, searched)) is not None:
            searched = mark[1] - 1  # its newline may begin the next one
            yield position - len(tail) + mark[1]
        position += len(chunk)
        tail = data[max(searched, len(data) - len(END)) :]


def read_records(file: Readable) -> Iterator[bytes]:
    """Yield the raw bytes of each record of `file` without its end, still escaped.

    Lines may end with a carriage return before the newline. A file without a mark is one document. Text after the last
    mark is a document too, unless it is blank. Memory grows with the longest document, not with the file.
    """
    buffer = bytearray(b"\n")  # so that a mark on the first line is found like any other
    start = 1
    found_mark = False
    for chunk in chunks(file, _CHUNK_BYTES):
        searched = max(0, len(buffer) - len(END))
        buffer += chunk
        while (mark := _find_end(buffer, max(searched, start - 1))) is not None:
            found_mark = True
            yield _without_return(buffer[start : mark[0]])  # empty when the mark line follows another one
            start = mark[1]
        # Keep the newline before `start`: if the next document is empty, its end begins with it.
        del buffer[: start - 1]
        start = 1
    rest = bytes(buffer[start - 1 :])
    unended = rest.endswith(END[:-1])  # a file may end without a newline
    rest = _without_return(rest[1 : -len(END) + 1]) if unended else rest[1:]
    if rest.strip() if found_mark or unended else rest:
        yield rest
