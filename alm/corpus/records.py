"""The clean text format: documents separated by a mark line, exact for every document.

A record is the document, a newline, the line `<|endoftext|>`, a newline. A line of the document that
reads like the mark (any number of backslashes, then the mark) gets one more backslash when written
and loses it when read.
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
    """`text` with every line that reads like the mark made one backslash longer."""
    return _ESCAPABLE.sub(r"\\\1", text) if MARK in text else text


def unescape(text: str) -> str:
    """The inverse of `escape`."""
    return _ESCAPED.sub(r"\1", text) if MARK in text else text


def record(text: str) -> bytes:
    """The bytes that stand for one document."""
    return escape(text).encode("utf-8") + END


def record_of(text: str, data: bytes) -> bytes:
    """The same for a `text` whose UTF-8 is `data`, so that it is not encoded again."""
    return record(text) if MARK in text else data + END


def framed(raw: bytes) -> bytes:
    """A record from what `read_records` gives for it."""
    return raw + END


def read_records(file: Readable) -> Iterator[bytes]:
    """The raw bytes of each record of `file` without its end, still escaped.

    A file without any mark is one document as it is; text after the last mark is a document too
    unless it is blank. Memory grows with the longest document, not with the file.
    """
    buffer = bytearray(b"\n")  # so that a mark in the very first line is found like any other
    start = 1
    found_mark = False
    for chunk in chunks(file, _CHUNK_BYTES):
        searched = max(0, len(buffer) - len(END) + 1)
        buffer += chunk
        while (end := buffer.find(END, max(searched, start - 1))) >= 0:
            found_mark = True
            yield bytes(buffer[start:end])  # empty when the mark line follows another one
            start = end + len(END)
        # The newline before `start` stays: it may begin the next end, when a document is empty.
        del buffer[: start - 1]
        start = 1
    rest = bytes(buffer[start - 1 :])
    unended = rest.endswith(END[:-1])  # a file may end without a newline
    rest = rest[1 : -len(END) + 1] if unended else rest[1:]
    if rest.strip() if found_mark or unended else rest:
        yield rest
