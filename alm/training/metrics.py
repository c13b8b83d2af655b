"""`metrics.jsonl`: one JSON object a line, the record of a run that everything else is drawn from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from alm.files import explained, write_bytes

NAME = "metrics.jsonl"

Row = dict[str, float | int]


class MetricsFile:
    """Appends rows; each is in the file as soon as it is written, and on the disk after `sync`."""

    def __init__(self, run: Path) -> None:
        self._path = run / NAME
        with explained(self._path):
            # Unbuffered: a row is in the file or its writer has been told.
            self._file = self._path.open("ab", buffering=0)

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, row: Row) -> None:
        with explained(self._path):
            self._file.write((json.dumps(row) + "\n").encode())

    def sync(self) -> None:
        """Wait until the rows are on the disk: before a checkpoint says that they are."""
        with explained(self._path):
            os.fsync(self._file.fileno())


class NoMetrics(MetricsFile):
    """For a rank that writes no files: takes rows and keeps none."""

    def __init__(self) -> None:
        """There is no file to open."""

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, row: Row) -> None:
        pass

    def sync(self) -> None:
        pass


def read(run: Path) -> list[Row]:
    """The rows of a run, without a last one that a kill cut off."""
    path = run / NAME
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines if line.strip()]


def cut(run: Path, *, after: int) -> list[Row]:
    """Take the rows of steps after `after` out of the file and return them: they will be made again."""
    rows = read(run)
    later = [row for row in rows if row["step"] > after]
    path = run / NAME
    kept = as_text([row for row in rows if row["step"] <= after]).encode()
    if path.is_file() and path.read_bytes() != kept:
        write_bytes(path, kept)
    return later


def training_seconds(rows: Iterable[Row]) -> float:
    """Seconds spent in steps, over all sittings of the run; validation and saving are not counted."""
    total, before = 0.0, 0.0
    for row in rows:
        if "step_seconds" in row:
            total += (row["step"] - before) * row["step_seconds"]
            before = row["step"]
    return total


def as_text(rows: Iterable[Row]) -> str:
    """`rows` as they stand in the file."""
    return "".join(json.dumps(row) + "\n" for row in rows)
