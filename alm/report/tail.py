"""A file of JSON lines that another process may be writing: read as it grows, and reread if it was replaced."""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Protocol

from alm.files import readable, regular
from alm.training.monitoring.metrics import Row, parsed

_BLOCK = 4 * 2**20
_LONGEST_LINE = 4 * _BLOCK
_REMEMBERED = 1024


class Rows(Protocol):
    """Receives rows; a list is one."""

    def clear(self) -> None:
        """Forget all rows."""

    def extend(self, rows: Sequence[Row], /) -> None:
        """Add the rows that follow."""


class Tail:
    """Passes each row of `path` to `rows` once; the file need not exist yet.

    A row is an object with a step; other lines are counted in `damaged` and left out. A last line without a newline
    is read when it is complete.
    """

    def __init__(self, path: Path, rows: Rows) -> None:
        self._path = path
        self._rows = rows
        self._begin(None)

    def look(self) -> bool:
        """Read new rows and return whether there were any. `InputError` if the file cannot be read."""
        file = self._opened()
        if file is None:
            was_there = self._identity is not None
            self._begin(None)
            return was_there
        with file:
            return self._look(file)

    def _opened(self) -> BufferedReader | None:
        with readable(self._path):
            try:
                return regular(self._path).open("rb")
            except FileNotFoundError:
                return None

    def _look(self, file: BufferedReader) -> bool:
        state = os.fstat(file.fileno())
        identity = (state.st_dev, state.st_ino)
        is_another = identity != self._identity or state.st_size < self._read or not self._is_continued(file)
        if is_another:  # a resumed run removes rows after its checkpoint
            self._begin(identity)
        file.seek(self._read)
        # Read up to the size seen above and no further: a fast writer cannot keep this loop running.
        before, left = self._lines, state.st_size - self._read
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            left -= len(block)
            self._take(block)
        return is_another or self._lines > before

    def _is_continued(self, file: BufferedReader) -> bool:
        """Whether the last bytes read are still there. The inode is not enough: its number can be reused."""
        file.seek(self._read - len(self._last))
        return file.read(len(self._last)) == self._last

    def _begin(self, identity: tuple[int, int] | None) -> None:
        self._identity = identity
        self._rest, self._last, self._is_too_long = b"", b"", False
        self._read, self._lines, self.damaged = 0, 0, 0
        self._rows.clear()

    def _take(self, block: bytes) -> None:
        self._read += len(block)
        self._last = (self._last + block)[-_REMEMBERED:]
        *lines, self._rest = (self._rest + block).split(b"\n")
        if lines and self._is_too_long:
            lines[0] = b"{"  # the end of a line that was too long to keep: not JSON, so it counts as damaged
            self._is_too_long = False
        if len(self._rest) > _LONGEST_LINE:
            self._rest, self._is_too_long = b"", True
        found = parsed([line for line in lines if line.strip()])
        rows = [row for row in found if row is not None]
        self._lines += len(found)
        self.damaged += len(found) - len(rows)
        self._rows.extend(rows)
