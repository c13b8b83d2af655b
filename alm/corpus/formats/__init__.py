"""Kinds of file format that the source `files` reads. Each module has

- `SUFFIXES`, the ends of the names of its files, compression set aside,
- `HAS_ROWS`, whether it yields rows, of which an adapter makes documents, or documents,
- `fits(head)`, whether the first bytes of a file tell that it has this format; None where they cannot tell,
- `parts(path, reading, *, part_bytes)`, the pieces of about so many bytes in which the file can be read,
- `read(path, where, reading)`, a generator of the `Row`s (or `Document`s) of one piece, and of what was `Dropped`;
  the pieces of a file in turn give what the whole gives.

A file that cannot be read at all, or not to its end, is an `InputError`. What is wrong with a single line or row
goes through `alm.corpus.rows.left_out`, and reading goes on behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alm.artifacts import as_text
from alm.corpus.document import Part
from alm.corpus.rows import OnBadInput

DocumentRule = Literal["auto", "file", "block", "line", "mark"]


@dataclass(frozen=True)
class Reading:
    """How files are read, whatever their format.

    `columns` are the fields that are needed, or None for all. `spans_rows` forbids to cut a file between rows.
    """

    document: DocumentRule = "auto"
    encoding: str = "auto"
    columns: tuple[str, ...] | None = None
    spans_rows: bool = False
    max_document_bytes: int = 16 << 20
    on_bad_input: OnBadInput = "stop"


def whole(path: Path) -> list[Part]:
    """The file in one piece."""
    return [Part(as_text(path), path.stat().st_size)]
