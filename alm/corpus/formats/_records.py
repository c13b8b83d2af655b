"""The records of a table of text, one by one; a broken one costs its first line and nothing behind it."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from alm.corpus.formats._lines import LongLine

DELIMITERS = ",;\t|"


class Record(NamedTuple):
    """The fields of a record, the number of its first line, and its size in bytes."""

    fields: list[str]
    line: int
    size: int


class BadRecord(NamedTuple):
    """A line at which no record begins: why, its number, where in the text it lies, and the line."""

    problem: str | UnicodeDecodeError
    line: int
    offset: int
    data: bytes | LongLine


def delimiter_of(names: str) -> str:
    """What separates the fields of a line of names: of the usual delimiters that which is most frequent there."""
    outside = "".join(names.split('"')[::2])
    return max(DELIMITERS, key=outside.count)


class Records:
    """Reads records of `lines`, each of at most `longest` bytes. `offset` is where the first line begins."""

    def __init__(self, lines: Iterator[bytes | LongLine], *, longest: int, offset: int) -> None:
        self._lines = lines
        self._longest = longest
        self._again: deque[bytes | LongLine] = deque()
        self._number, self._offset = 1, offset  # of the next line
        self._taken: list[bytes] = []
        self._problem: str | UnicodeDecodeError | None = None

    def read(self, delimiter: str) -> Iterator[Record | BadRecord]:
        """The next records, blank lines passed over."""
        while (line := self._next()) is not None:
            if isinstance(line, LongLine):
                yield self._bad("the line is too long", line)
                continue
            self._again.appendleft(line)
            ...
