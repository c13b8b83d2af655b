"""Kind `json`: an array of objects, one object, or several objects in a row; read in pieces, whatever the size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alm.artifacts import as_text
from alm.corpus.document import Dropped, Part
from alm.corpus.formats import Reading, repeated_key, whole
from alm.corpus.formats._encoding import open_utf8
from alm.corpus.formats._json_values import BadValue, LongValue, end_of_value, json_values
from alm.corpus.rows import Row, left_out
from alm.errors import InputError, quoted

SUFFIXES = frozenset({".json"})
HAS_ROWS = True

_BEGINNING = re.compile(rb'(?:\xef\xbb\xbf)?\s*\[\s*\{\s*"')
_LINE_ONE = re.compile(r"\ufeff?\s*(\{[^\n]*\n\s*)")


def fits(head: bytes) -> bool:
    """Whether the file begins like an array of objects."""
    return _BEGINNING.match(head) is not None


def spans_lines(head: bytes) -> bool:
    """Whether the file begins like an array of objects, or like an object that continues after its first line."""
    text = head.decode("utf-8", "replace")
    line = _LINE_ONE.match(text)
    if fits(head) or line is None:
        return fits(head)
    return end_of_value(line[1]) == len(line[1]) < end_of_value(text[line.start(1) :])


def parts(path: Path, reading: Reading, *, part_bytes: int) -> list[Part]:
    """Return the complete file: the start of an object cannot be found from the middle of the file."""
    return whole(path)


def read(path: Path, where: tuple[int, ...], reading: Reading) -> Iterator[Row | Dropped]:
    """Yield a row for each object. Origins are row numbers, from 1."""
    with open_utf8(path, reading.encoding) as (file, _):
        for number, value in enumerate(json_values(file, longest=reading.max_document_bytes), start=1):
            origin = f"{as_text(path)}#{number}"
            if isinstance(value, dict) and (key := repeated_key(value, reading.columns)) is None:
                yield Row(value, origin)
            elif isinstance(value, dict):
                yield _twice(value, key, path=path, number=number, reading=reading)
            elif isinstance(value, LongValue):
                yield Dropped("too_long", value.size, documents=1, origin=origin, excerpt=value.beginning)
            else:
                yield _bad(value, path=path, number=number, reading=reading)


def _twice(value: dict[str, Any], key: str | None, *, path: Path, number: int, reading: Reading) -> Dropped:
    row = Row(value, f"{as_text(path)}#{number}")
    dropped = Dropped("bad_json", row.size(), documents=1, origin=row.origin, excerpt=row.excerpt())
    error = InputError(f"`{path}` row {number} gives a key twice: `{key}`", hint="keep one of the two in the file")
    return left_out(dropped, error, on_bad_input=reading.on_bad_input)


def _bad(value: object, *, path: Path, number: int, reading: Reading) -> Dropped:
    if isinstance(value, BadValue):
        reason, said = value.reason, f"`{path}` row {number} is not JSON: {value.problem} at character {value.at:,}"
        size, beginning = value.size, value.beginning
    else:
        reason, said = "bad_json", f"`{path}` row {number} is a JSON {type(value).__name__}, but must be an object"
        size, beginning = len(repr(value)), repr(value)[:300]
    error = InputError(
        said,
        hint=f"check the file with `python -m json.tool {quoted(path)}`, or read it as text: "
        "`--set sources.<name>.format=text`",
    )
    dropped = Dropped(reason, size, documents=1, origin=f"{as_text(path)}#{number}", excerpt=beginning)
    return left_out(dropped, error, on_bad_input=reading.on_bad_input)
