"""Kind `csv`: tables with a header line; fields are separated by commas, semicolons, tabs or bars."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from alm.artifacts import as_text
from alm.corpus.document import Dropped, Part
from alm.corpus.formats import Reading, refuse_repeated, whole
from alm.corpus.formats._encoding import bad_utf8, open_utf8
from alm.corpus.formats._lines import LongLine, excerpt, lines
from alm.corpus.formats._records import BadRecord, Record, delimiter_of, read_records
from alm.corpus.rows import Row, left_out
from alm.errors import InputError, quoted
from alm.files import suffix

SUFFIXES = frozenset({".csv", ".tsv"})
HAS_ROWS = True
# Excel's, before the header; programs that rewrite the file quote it, or pad it with delimiters.
_DELIMITER_LINE = re.compile(rb'"?sep=(\\t|[\x21\x23-\x7e\t])"?[,;\t|]*[ \r]*\n', re.IGNORECASE)
_BLANK = re.compile(rb"[\s,;|]*\n")


def fits(head: bytes) -> bool | None:
    """Return None: any text may contain commas."""
    return None


def parts(path: Path, reading: Reading, *, part_bytes: int) -> list[Part]:
    """Return the complete file: a line end may be in quotes, so a cut could fall within a record."""
    return whole(path)


def read(path: Path, where: tuple[int, ...], reading: Reading) -> Iterator[Row | Dropped]:
    """Yield a row for each record after the header; missing fields are None. Origins are row numbers, from 1."""
    with open_utf8(path, reading.encoding) as (file, offset):
        all_lines = lines(file, longest=reading.max_document_bytes)
        first, number, delimiter = next(all_lines, b""), 1, None
        while isinstance(first, bytes) and first and (_BLANK.fullmatch(first) or _DELIMITER_LINE.match(first)):
            if said := _DELIMITER_LINE.match(first):
                delimiter = said[1].decode().replace("\\t", "\t")
            offset += len(first)
            first, number = next(all_lines, b""), number + 1
        if isinstance(first, bytes) and b"\r" in first.rstrip(b"\r\n"):
            raise InputError(
                f"`{path}` ends its lines with carriage returns only",
                hint=f"convert it with `tr '\\r' '\\n' < {quoted(path)} > fixed{quoted(path.suffix)}`",
            )
        delimiter = delimiter or ("\t" if suffix(path) == ".tsv" else delimiter_of(first))
        longest = reading.max_document_bytes
        records = read_records(
            chain([first], all_lines), delimiter=delimiter, longest=longest, offset=offset, number=number
        )
        names = _names(next(records, None), path)
        refuse_repeated(names, reading.columns, path=path)
        for number, record in enumerate(records, start=1):
            origin = f"{as_text(path)}#{number}"
            if isinstance(record, BadRecord):
                yield _bad(record, origin, path=path, reading=reading)
            elif any(record.fields[len(names) :]):
                yield _too_many(record, names, origin, path=path, reading=reading)
            else:
                yield Row(_values(names, record.fields), origin, record.size)


def _names(record: Record | BadRecord | None, path: Path) -> list[str]:
    if isinstance(record, BadRecord):
        _refuse_names(record, path)
    return record.fields if record else []


def _refuse_names(record: BadRecord, path: Path) -> NoReturn:
    if isinstance(record.problem, UnicodeDecodeError):
        raise bad_utf8(path, record.problem, offset=record.offset)
    raise InputError(
        f"`{path}` does not begin with a header line: {record.problem}",
        hint=f"show the line with `head -n 1 {quoted(path)}`",
    )


def _values(names: list[str], fields: list[str]) -> dict[str, Any]:
    missing = len(names) - len(fields)
    return dict(zip(names, [*fields, *[None] * missing] if missing > 0 else fields, strict=False))


def _bad(record: BadRecord, origin: str, *, path: Path, reading: Reading) -> Dropped:
    if isinstance(record.data, LongLine):
        return record.data.dropped(origin)
    if isinstance(record.problem, UnicodeDecodeError):
        reason = "bad_utf8"
        error: InputError = bad_utf8(path, record.problem, offset=record.offset)
    else:
        reason = "bad_csv"
        error = _not_csv(path, record.line, record.problem)
    dropped = Dropped(reason, len(record.data), documents=1, origin=origin, excerpt=excerpt(record.data))
    return left_out(dropped, error, on_bad_input=reading.on_bad_input)


def _too_many(record: Record, names: list[str], origin: str, *, path: Path, reading: Reading) -> Dropped:
    error = _not_csv(path, record.line, f"it has {len(record.fields)} fields, the header line has {len(names)}")
    shown = excerpt("\n".join(record.fields).encode("utf-8", "replace"))
    dropped = Dropped("bad_csv", record.size, documents=1, origin=origin, excerpt=shown)
    return left_out(dropped, error, on_bad_input=reading.on_bad_input)


def _not_csv(path: Path, line: int, problem: str) -> InputError:
    return InputError(
        f"`{path}` line {line} cannot be read as CSV: {problem}",
        hint=f"show the line with `sed -n {line}p {quoted(path)}`",
    )
