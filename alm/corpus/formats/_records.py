"""Reading of CSV records, one by one; a broken record costs only its first line."""

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
    """A line at which no valid record begins: the problem, its number, its offset in the file, and the line.

    If bytes are not text, `offset` is that of the line of the record that contains them.
    """

    problem: str | UnicodeDecodeError
    line: int
    offset: int
    data: bytes | LongLine


def delimiter_of(names: bytes | LongLine) -> str:
    """Return the delimiter of a header line: the most frequent of the common delimiters, outside of quotes."""
    outside = "" if isinstance(names, LongLine) else "".join(names.decode("utf-8", "replace").split('"')[::2])
    return max(_DELIMITERS, key=outside.count)


def read_records(
    lines: Iterator[bytes | LongLine], *, delimiter: str, longest: int, offset: int, number: int
) -> Iterator[Record | BadRecord]:
    """Yield the records of `lines`, each of at most `longest` bytes, without blank lines.

    The first line has this `offset` in the file and this `number`.
    """
    feed = _Feed(lines, longest)
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
    """Return the next record; None if the lines end between records."""
    # The limit applies to the entire process, so it is restored afterwards; `_Feed` bounds a record.
    before = csv.field_size_limit(longest)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _said(error: csv.Error) -> str:
    return "a quote is not closed" if str(error) == _UNENDED else str(error)


class _Feed:
    """Feeds lines to a reader of records; lines can be taken back.

    `taken` are the lines given to the current record, and `size` is their size. A line that cannot be part of a
    record (too long itself, or making the record too long) looks like the end.
    """

    def __init__(self, lines: Iterator[bytes | LongLine], longest: int) -> None:
        self._lines = lines
        self._longest = longest
        self._again: deque[bytes | LongLine] = deque()
        self.taken: list[bytes] = []
        self.size = 0

    def texts(self) -> Iterator[str]:
        """Yield the next lines as text."""
        while (line := self._line()) is not None:
            if isinstance(line, LongLine) or (self.taken and self.size + len(line) > self._longest):
                self._again.appendleft(line)
                return
            self.taken.append(line)
            self.size += len(line)
            yield line.decode("utf-8")

    def take_back_but_first(self) -> bytes | LongLine | None:
        """Return the first line of the current record, or the next line if it has none. Others are fed again."""
        if not self.taken:
            return self._line()
        first, *others = self.taken
        self._again.extendleft(reversed(others))
        return first

    def _line(self) -> bytes | LongLine | None:
        return self._again.popleft() if self._again else next(self._lines, None)
