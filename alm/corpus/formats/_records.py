"""The records of a table of text, one by one; a broken one costs its first line and nothing behind it."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from alm.corpus.formats._lines import LongLine

_DELIMITERS = ",;\t|"
_UNENDED = "unexpected end of data"


class Record(NamedTuple):
    """The fields of a record, the number of its first line, and its size in bytes."""

    fields: list[str]
    line: int
    size: int


class BadRecord(NamedTuple):
    """A line at which no record begins: why, its number, where in the file it lies, and the line.

    For bytes that are no text the place is that of the line that holds them, of those that the record would have.
    """

    problem: str | UnicodeDecodeError
    line: int
    offset: int
    data: bytes | LongLine


def delimiter_of(names: bytes | LongLine) -> str:
    """What separates the fields of a line of names: of the usual delimiters that which is most frequent there."""
    outside = "" if isinstance(names, LongLine) else "".join(names.decode("utf-8", "replace").split('"')[::2])
    return max(_DELIMITERS, key=outside.count)


def read_records(
    lines: Iterator[bytes | LongLine], *, delimiter: str, longest: int, offset: int
) -> Iterator[Record | BadRecord]:
    """The records of `lines`, each of at most `longest` bytes, without blank lines.

    `offset` is where the first line lies in the file.
    """
    feed = _Feed(lines, longest)
    number = 1
    while True:
        reader = csv.reader(feed.texts(), delimiter=delimiter, strict=True)
        problem: str | UnicodeDecodeError | None = None
        while problem is None:
            feed.taken.clear()
            feed.size = 0
            try:
                fields = _next(reader, longest)
            except (csv.Error, UnicodeDecodeError) as error:
                problem = error if isinstance(error, UnicodeDecodeError) else _said(error)
                break
            if fields is None:
                break
            if fields:
                yield Record(fields, number, feed.size)
            number += len(feed.taken)
            offset += feed.size
        place = offset + (feed.size - len(feed.taken[-1]) if isinstance(problem, UnicodeDecodeError) else 0)
        line = feed.take_back_but_first()
        if line is None:
            return
        yield BadRecord(problem or "the line is too long", number, place, line)
        number += 1
        offset += line.size if isinstance(line, LongLine) else len(line)


def _next(reader: Iterator[list[str]], longest: int) -> list[str] | None:
    """The next record; None where the lines end between records."""
    # The limit is the whole process's; a record is bounded by `_Feed`.
    before = csv.field_size_limit(longest)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _said(error: csv.Error) -> str:
    return "a quote opens that does not close" if str(error) == _UNENDED else str(error)


class _Feed:
    """Lines for a reader of one record after another, which can be taken back.

    `taken` are those that the present record has been given, and `size` is their size. What cannot be part of a
    record (a line that is too long, or one that would make the record too long) looks like the end.
    """

    def __init__(self, lines: Iterator[bytes | LongLine], longest: int) -> None:
        self._lines = lines
        self._longest = longest
        self._again: deque[bytes | LongLine] = deque()
        self.taken: list[bytes] = []
        self.size = 0

    def texts(self) -> Iterator[str]:
        """The next lines as text."""
        while (line := self._line()) is not None:
            if isinstance(line, LongLine) or (self.taken and self.size + len(line) > self._longest):
                self._again.appendleft(line)
                return
            self.taken.append(line)
            self.size += len(line)
            yield line.decode("utf-8")

    def take_back_but_first(self) -> bytes | LongLine | None:
        """The first line of the present record, or the next if it has none; the others will come again."""
        if not self.taken:
            return self._line()
        first, *others = self.taken
        self._again.extendleft(reversed(others))
        return first

    def _line(self) -> bytes | LongLine | None:
        return self._again.popleft() if self._again else next(self._lines, None)
