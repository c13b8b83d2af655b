"""Kinds of file format that the source `files` reads. Each module has

- `SUFFIXES`, the suffixes of its files, before any compression suffix,
- `HAS_ROWS`, True if it yields rows, which an adapter turns into documents, and False if it yields documents,
- `fits(head)`, whether the first bytes of a file show this format; None if they cannot,
- `parts(path, reading, *, part_bytes)`, the pieces of about `part_bytes` in which the file can be read,
- `read(path, where, reading)`, a generator of the `Row`s (or `Document`s) of one piece, and of `Dropped` items;
  the pieces of a file, in order, yield the same as the complete file.

A file that cannot be read at all, or not to its end, raises `InputError`. An error in a single line or row goes
through `alm.corpus.rows.left_out`, and reading continues after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alm.artifacts import as_text
from alm.corpus.document import BESIDE_MESSAGES, Part
from alm.corpus.rows import OnBadInput
from alm.errors import InputError, quoted
from alm.files import RepeatedKeys

DocumentRule = Literal["auto", "file", "block", "line", "mark"]


@dataclass(frozen=True)
class Reading:
    """Settings for reading files of any format.

    `columns` are the needed fields, or None for all. With `spans_rows`, a file may not be cut between rows.
    """

    document: DocumentRule = "auto"
    encoding: str = "auto"
    columns: tuple[str, ...] | None = None
    spans_rows: bool = False
    max_document_bytes: int = 16 << 20
    on_bad_input: OnBadInput = "stop"


def present(needed: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return those `needed` among the `names` of columns; none if there are only some that lie beside messages."""
    there = [name for name in dict.fromkeys(needed) if name in names]
    is_beside = set(BESIDE_MESSAGES).issubset(needed) and set(there).issubset(BESIDE_MESSAGES)
    return [] if is_beside else there


def refuse_repeated(names: Sequence[str], needed: tuple[str, ...] | None, *, path: Path) -> None:
    """Raise `InputError` if several columns have the same name, and it is one of those `needed`: which one counts?"""
    for name in dict.fromkeys(names if needed is None else needed):
        if (count := names.count(name)) > 1:
            places = ", ".join(str(number) for number, each in enumerate(names, start=1) if each == name)
            others = [each for each in names if each and names.count(each) == 1]
            other = f", or name another column: `--set sources.<name>.field={quoted(others[0])}`" if others else ""
            raise InputError(
                f"`{path}` has {count} columns named `{name}`: {places}", hint=f"give them different names{other}"
            )


def repeated_key(row: Mapping[str, Any], needed: tuple[str, ...] | None) -> str | None:
    """Return a key given twice where an adapter may read: among the `needed` fields (None: all), or within them.

    Of an object in a list, such as a message, adapters read no objects that it holds directly.
    """
    if isinstance(row, RepeatedKeys) and (twice := row.repeated if needed is None else row.repeated & {*needed}):
        return min(twice)
    return _repeated_in([value for name, value in row.items() if needed is None or name in needed], is_listed=False)


def _repeated_in(values: Iterable[Any], *, is_listed: bool) -> str | None:
    for value in values:
        found = None
        if isinstance(value, RepeatedKeys):
            found = min(value.repeated)
        elif isinstance(value, dict):
            inner = [each for each in value.values() if isinstance(each, list) or not is_listed]
            found = _repeated_in(inner, is_listed=is_listed)
        elif isinstance(value, list):
            found = _repeated_in(value, is_listed=True)
        if found is not None:
            return found
    return None


def whole(path: Path) -> list[Part]:
    """Return the file in one piece."""
    return [Part(as_text(path), path.stat().st_size)]
