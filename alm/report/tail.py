"""A file of JSON lines that another process may be writing: read as it grows, and again when it was replaced."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from alm.training.metrics import Row, parsed


class Tail:
    """The rows of `path`, which need not be there yet.

    A row is an object with a whole number `step`; other lines are counted in `damaged` and left out. A last line
    without its end is not there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None
        self._rest = b""
        self._read = 0
        self.rows: list[Row] = []
        self.damaged = 0

    def look(self) -> bool:
        """Read what is new; whether there was anything."""
        try:
            with self._path.open("rb") as file:
                state = os.fstat(file.fileno())
                begins_anew = self._identity != (state.st_dev, state.st_ino) or state.st_size < self._read
                if begins_anew:  # a run that is resumed takes rows back
                    self._begin((state.st_dev, state.st_ino))
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            was_there = self._identity is not None
            self._begin(None)
            return was_there
        self._read += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        before = len(self.rows) + self.damaged
        self.rows += self._parsed(lines)
        return begins_anew or len(self.rows) + self.damaged > before

    def _begin(self, identity: tuple[int, int] | None) -> None:
        self._identity, self._rest, self._read = identity, b"", 0
        self.rows, self.damaged = [], 0

    def _parsed(self, lines: list[bytes]) -> Iterator[Row]:
        for line in lines:
            if line.strip():
                row = parsed(line)
                if row is None:
                    self.damaged += 1
                else:
                    yield row
