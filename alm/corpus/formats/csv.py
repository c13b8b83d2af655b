"""Kind `csv`: tables with a line of names, between commas, semicolons, tabs or bars."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from alm.corpus.document import Dropped, Part
from alm.corpus.formats import Reading, whole
from alm.corpus.formats._encoding import open_utf8
from alm.corpus.formats._lines import excerpt, lines
from alm.corpus.formats._records import BadRecord, LongRecord, Record, read_records
from alm.corpus.rows import Row, left_out
from alm.errors import InputError
from alm.files import suffix

SUFFIXES = frozenset({".csv", ".tsv"})
HAS_ROWS = True

_DELIMITERS = ",;\t|"


def fits(head: bytes) -> bool | None:
    """Commas are in any text."""
    return None


def parts(path: Path, reading: Reading, *, part_bytes: int) -> list[Part]:
    """The whole file: a line end may lie in quotes."""
    return whole(path)


def read(path: Path, where: tuple[int, ...], reading: Reading) -> Iterator[Row | Dropped]:
    """A row for each record behind the names. Origins are numbers of rows, from 1."""
    with open_utf8(path, reading.encoding) as (file, start):
        begin = file.peek(_HEAD_BYTES)[:_HEAD_BYTES]
