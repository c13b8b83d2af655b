"""Reads and writes `metrics.jsonl`, one JSON object per line: the record of a run that all displays are based on."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from alm.errors import AlmError, quoted
from alm.events import Listener, Warned, ignore
from alm.files import is_full, parse_json, read_bytes, wrap_os_errors

NAME = "metrics.jsonl"
_MOST_NAMED = 5  # lines in a warning
_MOST_STEPS = 2**53
_PARSED_TOGETHER = 1000

Row = dict[str, Any]  # Any: JSON; numbers, `skipped_rows` a list of them; texts among the samples


class MetricsFile:
    """Appends rows; each is in the file as soon as it is written, and on the disk after `sync`.

    Rows that do not fit on a full disk wait in memory, in order, and are tried again with every new row.
    """

    def __init__(
        self, run: Path, *, on_event: Listener = ignore, pass_on: Callable[[Row], None] = lambda row: None
    ) -> None:
        self.run = run
        self._pass_on = pass_on
        self._path = run / NAME
        self._on_event = on_event
        self._waiting = b""
        with wrap_os_errors(self._path):
            # Unbuffered: a row is in the file, or its writer gets the error.
            self._file = self._path.open("ab", buffering=0)
            self._size = self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._write_waiting():
            rows = self._waiting.count(b"\n")
            self._on_event(Warned(f"the disk is full: {rows:,} rows of `{self._path}` are lost", _hint(self._path)))
        self._file.close()

    def write(self, row: Row) -> None:
        """Append `row`, then pass it on."""
        had_room = not self._waiting
        self._waiting += (json.dumps(row) + "\n").encode()
        if not self._write_waiting() and had_room:
            self._on_event(Warned(f"the disk is full: rows of `{self._path}` wait in memory", _hint(self._path)))
        self._pass_on(row)

    def sync(self) -> None:
        """Wait until the rows are on the disk; call it before the checkpoint that implies them is saved."""
        self._write_waiting()
        with self._full_disk_aside():
            os.fsync(self._file.fileno())

    def _write_waiting(self) -> bool:
        """Write waiting rows; return whether all are in the file."""
        while self._waiting:
            written = 0
            with self._full_disk_aside():
                written = self._file.write(self._waiting) or 0
            if written < len(self._waiting):  # remove half a row: the next row would be glued to it
                whole = self._waiting.rfind(b"\n", 0, written) + 1
                os.ftruncate(self._file.fileno(), self._size + whole)
                written = whole
            self._size += written
            self._waiting = self._waiting[written:]
            if not written:
                return False
        return True

    @contextlib.contextmanager
    def _full_disk_aside(self) -> Iterator[None]:
        try:
            with wrap_os_errors(self._path):
                yield
        except AlmError as error:
            if not is_full(error):
                raise


def _hint(path: Path) -> str:
    return f"make room (`df -h {quoted(path.parent)}`) "


class NoMetrics(MetricsFile):
    """Discards rows, for a rank that writes no files."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, row: Row) -> None:
        pass

    def sync(self) -> None:
        pass


def read(run: Path, *, name: str = NAME, on_event: Listener = ignore) -> list[Row]:
    """Return the rows of a run; `name` may be another file of the same form.

    A last line that a kill cut off is left out. So is any other line that is not a row, with a warning to `on_event`.
    """
    path = run / name
    lines = read_bytes(path).split(b"\n")[:-1] if path.is_file() else []
    numbers = [number for number, line in enumerate(lines, start=1) if line.strip()]
    found = parsed([lines[number - 1] for number in numbers])
    damaged = [number for number, row in zip(numbers, found, strict=True) if row is None]
    if damaged:
        on_event(Warned(_damage(damaged, path), None))
    return [row for row in found if row is not None]


def parsed(lines: Sequence[bytes]) -> list[Row | None]:
    """Return the row in each of `lines`, None for one that is not an object with a step."""
    found: list[Row | None] = []
    for first in range(0, len(lines), _PARSED_TOGETHER):
        some = lines[first : first + _PARSED_TOGETHER]
        found += map(_row, _flat(some) if _are_flat(some) else map(_value, some))
    return found


def _are_flat(lines: Sequence[bytes]) -> bool:
    """Whether each line, if it is JSON at all, is one object that holds neither another one nor a list."""
    text, count = b"\n".join(lines), len(lines)
    braces = text.count(b"{"), text.count(b"}"), text.count(b"}\n{") + 1
    return text.startswith(b"{") and text.endswith(b"}") and braces == (count, count, count) and b"[" not in text


def _flat(lines: Sequence[bytes]) -> list[Any]:  # Any: JSON
    """Return the values of flat lines, parsed all at once in half the time: no object can span two of them."""
    values = _value(b"[" + b",".join(lines) + b"]")
    return values if isinstance(values, list) and len(values) == len(lines) else [_value(line) for line in lines]


def _value(text: bytes) -> Any:  # Any: JSON
    """Return the value of `text`, None if it is not JSON."""
    try:
        # Duplicate keys need no check: alm writes the rows itself. Samples may hold halves of surrogate pairs.
        return parse_json(text, allow_nan=True, allow_surrogates=True, unique_keys=False)
    except ValueError:
        return None


def _row(value: Any) -> Row | None:  # Any: JSON
    if not isinstance(value, dict) or type(value.get("step")) is not int or not 0 <= value["step"] < _MOST_STEPS:
        return None
    if _NUMBERS.issuperset(map(type, value.values())) and _OTHERS.isdisjoint(value):
        return value
    return value if all(map(_fits, value, value.values())) else None


def _fits(key: str, value: object) -> bool:
    """Whether `value` has a type that rows have under `key`; keys that a later alm may add always fit."""
    if key in _TEXTS:
        return isinstance(value, str | None)
    if key == "skipped_rows":
        return isinstance(value, list) and _NUMBERS.issuperset(map(type, value))
    return key not in _OF_NUMBERS or type(value) in _NUMBERS


def _damage(lines: list[int], path: Path) -> str:
    if len(lines) == 1:
        return f"line {lines[0]} of `{path}` is not a row, and is left out"
    named = ", ".join(map(str, lines[:_MOST_NAMED]))
    more = f" and {len(lines) - _MOST_NAMED:,} more" if len(lines) > _MOST_NAMED else ""
    return f"lines {named}{more} of `{path}` are not rows, and are left out"


def split(run: Path, *, after: int, name: str = NAME, on_event: Listener = ignore) -> tuple[bytes, bytes] | None:
    """Return the text of the rows up to step `after`, and that of later rows, which training will produce again.

    Returns None if the file already holds only the former. Lines that are not rows are left out, with a warning as in
    `read`.
    """
    rows = read(run, name=name, on_event=on_event)
    path = run / name
    kept = as_text([row for row in rows if row["step"] <= after]).encode()
    if not path.is_file() or read_bytes(path) == kept:
        return None
    return kept, as_text([row for row in rows if row["step"] > after]).encode()


def training_seconds(rows: Iterable[Row]) -> float:
    """Return the seconds spent in steps, over all invocations of the run, without validation and saving.

    A row of a step that an earlier row has passed adds nothing, nor does one whose time is not zero or more.
    """
    total, before = 0.0, 0.0
    for row in rows:
        seconds = row.get("step_seconds")
        if seconds is not None and 0 <= seconds < math.inf and row["step"] > before:
            total += (row["step"] - before) * seconds
            before = row["step"]
    return total


OF_THE_MACHINE = frozenset({"tokens_per_second", "step_seconds", "mfu", "data_wait_share", "memory_bytes"})

_OF_NUMBERS = OF_THE_MACHINE | {
    *("loss", "lr", "gradient_norm", "tokens", "skipped_steps", "validation_loss"),
    *("bits_per_byte", "bits_per_byte_margin", "forecast", "forecast_low", "forecast_high"),
}
_TEXTS = frozenset({"prompt", "text", "verdict"})
_OTHERS = _TEXTS | {"skipped_rows"}
_NUMBERS = frozenset({float, int, type(None)})


def without_clock(rows: Iterable[Row]) -> list[Row]:
    """Return `rows` without values that depend on a clock or the machine's memory: the rest is equal in equal runs."""
    return [{key: value for key, value in row.items() if key not in OF_THE_MACHINE} for row in rows]


def as_text(rows: Iterable[Row]) -> str:
    """Return `rows` in the form of the file."""
    return "".join(json.dumps(row) + "\n" for row in rows)
