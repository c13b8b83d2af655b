"""Lines of files of any size: memory is bounded by the longest allowed line, and large files are cut between lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from alm.artifacts import as_text
from alm.corpus.document import Dropped, Part
from alm.corpus.formats import Reading, whole
from alm.corpus.formats._encoding import is_plain_utf8
from alm.corpus.rows import EXCERPT_CHARACTERS
from alm.files import chunks

_CHUNK_BYTES = 1 << 20


class LongLine(NamedTuple):
    """A line that is too long: its size with its line end, and its beginning."""

    size: int
    beginning: bytes

    def dropped(self, origin: str) -> Dropped:
        """Return the item to count for the line."""
        return too_long(self.size, origin=origin, beginning=self.beginning)


def too_long(size: int, *, origin: str, beginning: bytes) -> Dropped:
    """Return the item to count for a document of `size` bytes that starts with `beginning`."""
    return Dropped("too_long", size, documents=1, origin=origin, excerpt=excerpt(beginning))


def excerpt(data: bytes) -> str:
    """Return the beginning of `data` without its line end, for display."""
    return data[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "replace")[:EXCERPT_CHARACTERS].rstrip("\r\n")


def lines(file: BinaryIO, *, longest: int, size: int | None = None) -> Iterator[bytes | LongLine]:
    """Yield the lines of the next `size` bytes of `file` with their line ends; only `\\n` ends a line.

    A line of more than `longest` bytes, without its line end, is skipped in pieces.
    """
    readline = file.readline
    left = sys.maxsize if size is None else size
    limit = longest + 2  # room for \r\n
    while left > 0 and (line := readline(limit)):
        left -= len(line)
        if len(line) <= longest:
            yield line
            continue
        is_whole = line.endswith(b"\n") or len(line) < limit
        if is_whole and len(line.rstrip(b"\r\n")) <= longest:
            yield line
            continue
        beginning, length = line[: 4 * EXCERPT_CHARACTERS], len(line)
        while not line.endswith(b"\n") and (line := readline(_CHUNK_BYTES)):
            length += len(line)
            left -= len(line)
        yield LongLine(length, beginning)


def line_parts(path: Path, reading: Reading, *, part_bytes: int) -> list[Part]:
    """Cut the file between lines; `where` is the first byte, the end, and the number of the first line."""
    size = path.stat().st_size
    if size <= part_bytes or not is_plain_utf8(path, reading.encoding):
        return whole(path)
    starts, size = _starts(path, part_bytes)
    if len(starts) == 1:
        return whole(path)
    stops = [start for start, _ in starts[1:]] + [size]
    return [
        Part(as_text(path), stop - start, (start, stop, line))
        for (start, line), stop in zip(starts, stops, strict=True)
    ]


def _starts(path: Path, part_bytes: int) -> tuple[list[tuple[int, int]], int]:
    """Return the starts of pieces of at least `part_bytes`, each with its first line number, and the file's size."""
    starts = [(0, 1)]
    offset, line = 0, 1
    with path.open("rb") as file:
        for chunk in chunks(file, _CHUNK_BYTES):
            at = counted = 0
            while (target := starts[-1][0] + part_bytes) < offset + len(chunk):
                at = chunk.find(b"\n", max(target - 1 - offset, 0)) + 1
                if not at:
                    break
                line += chunk.count(b"\n", counted, at)
                counted = at
                starts.append((offset + at, line))
            line += chunk.count(b"\n", counted)
            offset += len(chunk)
    return [start for start in starts if start[0] < offset], offset
