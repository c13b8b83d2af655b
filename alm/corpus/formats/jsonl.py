"""Kind `jsonl`: one JSON object on each line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from alm.artifacts import as_text
from alm.corpus.document import Dropped, Part
from alm.corpus.formats import Reading, whole
from alm.corpus.formats._encoding import bad_utf8, open_utf8
from alm.corpus.formats._lines import LongLine, excerpt, line_parts, lines
from alm.corpus.rows import Row, left_out
from alm.errors import InputError, quoted

SUFFIXES = frozenset({".jsonl", ".ndjson"})
HAS_ROWS = True

# Not strict: raw control characters in strings are harmless, as cleaning removes them.
_decode = json.JSONDecoder(strict=False).decode


def fits(head: bytes) -> bool:
    """Whether the first line is an object and another one seems to follow."""
    first, _, rest = head.lstrip().partition(b"\n")
    if not (first.startswith(b"{") and rest.lstrip().startswith(b"{")):
        return False
    try:
        return isinstance(_decode(first.decode("utf-8")), dict)
    except (ValueError, RecursionError):
        return False


def parts(path: Path, reading: Reading, *, part_bytes: int) -> list[Part]:
    """Return pieces that end with a line."""
    return whole(path) if reading.spans_rows else line_parts(path, reading, part_bytes=part_bytes)


def read(path: Path, where: tuple[int, ...], reading: Reading) -> Iterator[Row | Dropped]:
    """Yield a row for each line that is not blank. Origins are line numbers, from 1."""
    start, stop, first = where or (0, None, 1)
    name = as_text(path)
    with open_utf8(path, reading.encoding, start=start) as (file, offset):
        size = None if stop is None else stop - offset
        for number, line in enumerate(lines(file, longest=reading.max_document_bytes, size=size), start=first):
            if isinstance(line, LongLine):
                yield line.dropped(f"{name}#{number}")
                offset += line.size
                continue
            try:
                values = _decode(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                if not line.isspace():
                    yield _bad(line, error, path=path, number=number, offset=offset, reading=reading)
            else:
                if type(values) is dict:
                    yield Row(values, f"{name}#{number}", len(line))
                else:
                    yield _no_object(line, values, path=path, number=number, reading=reading)
            offset += len(line)


def _bad(line: bytes, error: Exception, *, path: Path, number: int, offset: int, reading: Reading) -> Dropped:
    reason, said = (
        "bad_json",
        InputError(f"`{path}` line {number} cannot be read as JSON: {error}", hint=_look(path, number)),
    )
    if isinstance(error, UnicodeDecodeError):
        reason, said = "bad_utf8", bad_utf8(path, error, offset=offset)
    elif isinstance(error, json.JSONDecodeError):
        column = 1 + min(error.pos, len(error.doc.rstrip()))
        said = InputError(
            f"`{path}` line {number} is not JSON: {error.msg} at column {column}", hint=_look(path, number)
        )
    return _left_out(reason, line, said, path=path, number=number, reading=reading)


def _no_object(line: bytes, values: object, *, path: Path, number: int, reading: Reading) -> Dropped:
    said = InputError(
        f"`{path}` line {number} is a JSON {type(values).__name__}, but must be an object", hint=_look(path, number)
    )
    return _left_out("bad_json", line, said, path=path, number=number, reading=reading)


def _left_out(reason: str, line: bytes, said: InputError, *, path: Path, number: int, reading: Reading) -> Dropped:
    origin = f"{as_text(path)}#{number}"
    dropped = Dropped(reason, len(line), documents=1, origin=origin, excerpt=excerpt(line))
    return left_out(dropped, said, on_bad_input=reading.on_bad_input)


def _look(path: Path, number: int) -> str:
    look = f"show the line with `sed -n {number}p {quoted(path)}`"
    return f"{look}, or read the file as text: `--set sources.<name>.format=text`"
