"""Cutting of texts of any size into pieces of bounded size: at marks if there are any, else between lines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from alm.corpus.formats._lines import LongLine
from alm.corpus.records import MARK
from alm.corpus.rows import EXCERPT_CHARACTERS
from alm.files import chunks

_CHUNK_BYTES = 1 << 20
_MARK = MARK.encode()
_MARK_LINE_BYTES = len(_MARK) + 2
_BLANK_LINES = (b"\n\n", b"\n\r\n")


class Piece(NamedTuple):
    """A piece of a text: the number of its record, its own number in that record, its offset, and its bytes.

    `separator` is the size of the line end and the mark that follow it.
    """

    record: int
    number: int
    offset: int
    data: bytes | LongLine
    separator: int = 0


class _MarkLine(NamedTuple):
    """The start of a mark and the end of its line."""

    start: int
    end: int


def _find_mark(data: bytes, start: int, *, is_all: bool) -> _MarkLine | None:
    """Find the first line from `start` on that is the mark. `data` must begin at the start of a line."""
    at = start
    while (at := data.find(_MARK, at)) >= 0:
        end = at + len(_MARK)
        if not at or data[at - 1] == ord("\n"):
            if data.startswith((b"\n", b"\r\n"), end):
                return _MarkLine(at, data.index(b"\n", end) + 1)
            if is_all and end == len(data):
                return _MarkLine(at, end)
        at = end
    return None


def has_marks(file: BinaryIO) -> bool:
    """Whether a line of `file` is the mark."""
    seen = b"\n"
    for chunk in chunks(file):
        # Keep the end of the last chunk, where a mark may begin, and the byte before it, which shows a line start.
        seen = seen[-_MARK_LINE_BYTES:] + chunk
        if _find_mark(seen, 1, is_all=False):
            return True
    return _find_mark(seen, 1, is_all=True) is not None


class Cutter:
    """Cuts the text in `file` into pieces of at most `longest` bytes. `offset` is the file offset of the text."""

    def __init__(self, file: BinaryIO, *, longest: int, offset: int = 0) -> None:
        self._file = file
        self._longest = longest
        self._data = b""
        self._at = 0  # everything before has been cut off
        self._offset = offset  # of the first byte of `_data`
        self._is_ended = False

    def has_marks(self) -> bool | None:
        """Whether a line is the mark; None if the text is too long to check. Must be called before `pieces`."""
        while not self._is_ended and len(self._data) <= self._longest:
            self._fill()
        return _find_mark(self._data, 0, is_all=True) is not None if self._is_ended else None

    def pieces(self, *, is_marked: bool) -> Iterator[Piece]:
        """Yield all pieces in order. Without marks, the text is one record; an empty text is one empty piece."""
        record = 1
        while True:
            yield from self._record(record, is_marked)
            if not is_marked or (self._is_ended and self._at == len(self._data)):
                return
            record += 1

    def _record(self, record: int, is_marked: bool) -> Iterator[Piece]:
        """Yield the pieces of the text up to the next mark, if there are marks, and consume the mark."""
        for number in itertools.count(1):
            mark = self._next_mark() if is_marked else None
            end = mark.start if mark else self._whole_rest()
            text = None if end is None else self._data[self._at : end]
            if mark and text is not None:
                text = _without_line_end(text)
            if text is None or len(text) > self._longest:
                yield self._cut(record, number)
                continue
            offset = self._offset + self._at
            separator = mark.end - self._at - len(text) if mark else 0
            self._at += len(text) + separator
            if text or separator or number == 1:
                yield Piece(record, number, offset, text, separator)
            return

    def _whole_rest(self) -> int | None:
        """Return the end of the rest of the text if it is short enough for one piece, else None."""
        while not self._is_ended and len(self._data) - self._at <= self._longest:
            self._fill()
        return len(self._data) if len(self._data) - self._at <= self._longest else None

    def _next_mark(self) -> _MarkLine | None:
        """Return the next mark if it comes before the text is too long for one piece, else None."""
        searched = self._at
        while True:
            found = _find_mark(self._data, searched, is_all=self._is_ended)
            if found or self._is_ended or len(self._data) - self._at > self._longest + _MARK_LINE_BYTES:
                return found
            searched = max(0, len(self._data) - self._at - _MARK_LINE_BYTES)
            self._fill()

    def _cut(self, record: int, number: int) -> Piece:
        """Cut after the last blank line within the limit, or else after the last line within it."""
        data, start, limit = self._data, self._at, self._at + self._longest
        found = [(data.rfind(blank, start, limit), len(blank)) for blank in _BLANK_LINES]
        end = max((at + length for at, length in found if at >= 0), default=data.rfind(b"\n", start, limit) + 1)
        if not end:
            return Piece(record, number, self._offset + start, self._long_line())
        self._at = end
        return Piece(record, number, self._offset + start, data[start:end])

    def _long_line(self) -> LongLine:
        """Skip the line that begins here."""
        beginning, size = self._data[self._at : self._at + 4 * EXCERPT_CHARACTERS].partition(b"\n")[0], 0
        while not (end := self._data.find(b"\n", self._at) + 1) and not self._is_ended:
            size += len(self._data) - self._at
            self._at = len(self._data)
            self._fill()
        end = end or len(self._data)
        size += end - self._at
        self._at = end
        return LongLine(size, beginning)

    def _fill(self) -> None:
        """Read as much again as is there already: doubling the buffer keeps the time for a long text linear."""
        rest = self._data[self._at :]
        more = self._file.read(max(_CHUNK_BYTES, len(rest)))
        self._offset += self._at
        self._data, self._at = rest + more, 0
        self._is_ended = not more


def _without_line_end(text: bytes) -> bytes:
    if text.endswith(b"\r\n"):
        return text[:-2]
    return text.removesuffix(b"\n")
