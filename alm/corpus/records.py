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


def read_records(file: Readable) -> Iterator[bytes]:
    """Yield the raw bytes of each record of `file` without its end, still escaped.

    A file without a mark is one document. Text after the last mark is a document too, unless it is blank.
    Memory grows with the longest document, not with the file.
    """
    buffer = bytearray(b"\n")  # so that a mark on the first line is found like any other
    start = 1
    found_mark = False
    for chunk in chunks(file, _CHUNK_BYTES):
        searched = max(0, len(buffer) - len(END) + 1)
        buffer += chunk
        while (end := buffer.find(END, max(searched, start - 1))) >= 0:
            found_mark = True
            yield bytes(buffer[start:end])  # empty when the mark line follows another one
            start = end + len(END)
        # Keep the newline before `start`: if the next document is empty, its end begins with it.
        del buffer[: start - 1]
        start = 1
    rest = bytes(buffer[start - 1 :])
    unended = rest.endswith(END[:-1])  # a file may end without a newline
    rest = rest[1 : -len(END) + 1] if unended else rest[1:]
    if rest.strip() if found_mark or unended else rest:
        yield rest
