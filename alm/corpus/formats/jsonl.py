"""Kind `jsonl`: one JSON object on each line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from alm.artifacts import as_text
from alm.corpus.document import Dropped, Part
from alm.corpus.formats import Reading, repeated_key, whole
from alm.corpus.formats._encoding import bad_utf8, open_utf8
from alm.corpus.formats._lines import LongLine, excerpt, line_parts, lines
from alm.corpus.rows import Row, left_out
from alm.errors import InputError, quoted
from alm.files import ROW_DECODER

SUFFIXES = frozenset({".jsonl", ".ndjson"})
HAS_ROWS = True

_decode = ROW_DECODER.decode
_TWICE = "gives a key twice"


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
            problem: str | UnicodeDecodeError | None = None
            try:
                values = _decode(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                problem = None if line.isspace() else _problem(error)
            else:
                if not isinstance(values, dict):
                    problem = f"is a JSON {type(values).__name__}, but must be an object"
                elif (key := repeated_key(values, reading.columns)) is not None:
                    problem = f"{_TWICE}: `{key}`"
                else:
                    yield Row(values, f"{name}#{number}", len(line))
            if problem is not None:
                yield _bad(line, problem, path=path, number=number, offset=offset, reading=reading)
            offset += len(line)


def _problem(error: Exception) -> str | UnicodeDecodeError:
    """Return the end of the sentence "line n ..." about a line that is not JSON, or the error of its encoding."""
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error.msg} at column {1 + min(error.pos, len(error.doc.rstrip()))}"
    return error if isinstance(error, UnicodeDecodeError) else f"cannot be read as JSON: {error}"


def _ends_inside(line: bytes) -> bool:
    """Whether `line` is the beginning of a JSON value that may continue in the next line."""
    try:
        _decode(line.decode("utf-8"))
    except json.JSONDecodeError as error:
        return error.pos >= len(error.doc.rstrip()) and not error.doc.isspace()
    except (ValueError, RecursionError):
        pass
    return False


def _bad(
    line: bytes, problem: str | UnicodeDecodeError, *, path: Path, number: int, offset: int, reading: Reading
) -> Dropped:
    show = f"show the line with `sed -n {number}p {quoted(path)}`"
    if isinstance(problem, str) and problem.startswith(_TWICE):
        hint = f"{show}, and keep one of the two"
    else:
        is_json = line.lstrip().startswith(b"[") or (line.endswith(b"\n") and _ends_inside(line))
        other = "JSON: `--set sources.<name>.format=json`" if is_json else "text: `--set sources.<name>.format=text`"
        hint = f"{show}, or read the file as {other}"
    reason, error = "bad_json", InputError(f"`{path}` line {number} {problem}", hint=hint)
    if isinstance(problem, UnicodeDecodeError):
        reason, error = "bad_utf8", bad_utf8(path, problem, offset=offset)
    dropped = Dropped(reason, len(line), documents=1, origin=f"{as_text(path)}#{number}", excerpt=excerpt(line))
    return left_out(dropped, error, on_bad_input=reading.on_bad_input)
