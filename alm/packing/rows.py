"""How documents become rows: which tokens of which part go into which shard. Lengths alone decide, no ids are read.

`concat`: all documents of a split, one after the other, are one stream; row r starts at r x seq_len and reads one token
more than it has, so every token but the first of the split is predicted once.

`bestfit`: rows of seq_len + 1 tokens start with a document, the longest of those at hand, and are filled with the
longest that still fit (best fit decreasing; Ding et al. 2024, "Fewer Truncations Improve Language Modeling", section
3.2, with a bounded look-ahead). Where none fits, the longest is cut, and what is left of it begins the next row:
nothing is thrown away. Only the last row of a source is padded.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOOK_AHEAD = 4096  # documents that bestfit chooses from

Pieces = NDArray[np.int64]
"""(n, 3): part, first token in it, number of tokens."""


@dataclass(frozen=True)
class Span:
    """The tokens of one part, all of one source."""

    part: int
    source: str
    tokens: int


@dataclass(frozen=True)
class PlannedShard:
    """What one shard holds, and how many rows start in it; `padding` tokens are added at its end."""

    source: str
    pieces: Pieces
    sequences: int
    padding: int = 0

    @property
    def tokens(self) -> int:
        """With the padding."""
        return int(self.pieces[:, 2].sum()) + self.padding


def concat(spans: Iterable[Span], *, seq_len: int, sequences_per_shard: int) -> Iterator[PlannedShard]:
    """The shards of one split. What does not fill a last row is left out: the tail."""
    spans = list(spans)
    rows = max(0, (sum(span.tokens for span in spans) - 1) // seq_len)
    left = rows * seq_len + 1 if rows else 0
    full = seq_len * sequences_per_shard
    start = 0  # of the open shard, in the stream
    source = ""
    pieces: list[tuple[int, int, int]] = []
    held = 0

    def finished() -> Iterator[PlannedShard]:
        nonlocal start, pieces, held
        if held:
            sequences = min(-(-(start + held) // seq_len), rows) - min(-(-start // seq_len), rows)
            yield PlannedShard(source, np.array(pieces, dtype=np.int64).reshape(-1, 3), sequences)
            start, pieces, held = start + held, [], 0

    for span in spans:
        if span.source != source:
            yield from finished()
            source = span.source
        offset = 0
        while offset < span.tokens and left:
            taken = min(span.tokens - offset, full - held, left)
            pieces.append((span.part, offset, taken))
            offset, held, left = offset + taken, held + taken, left - taken
            if held == full:
                yield from finished()
    yield from finished()


@dataclass(frozen=True, order=True)
class _Document:
    length: int
    number: int
    part: int
    offset: int


def bestfit(
    documents: Iterable[tuple[int, int, int]], *, source: str, seq_len: int, sequences_per_shard: int
) -> Iterator[PlannedShard]:
    """The shards of one source in one split, of its `documents` (part, first token, tokens) in order."""
    pieces: list[tuple[int, int, int]] = []
    rows = padding = 0
    for row, missing in _rows(documents, seq_len + 1):
        pieces += row
        rows += 1
        padding = missing
        if rows == sequences_per_shard or missing:
            yield PlannedShard(source, np.array(pieces, dtype=np.int64), rows, padding)
            pieces, rows, padding = [], 0, 0
    if rows:
        yield PlannedShard(source, np.array(pieces, dtype=np.int64), rows)


def _rows(documents: Iterable[tuple[int, int, int]], width: int) -> Iterator[tuple[list[tuple[int, int, int]], int]]:
    """Each row's pieces, and how many tokens it lacks, which only the last one does."""
    coming = enumerate(documents)
    at_hand: list[_Document] = []  # by length
    carried: tuple[int, int, int] | None = None

    def refill() -> bool:
        while len(at_hand) < LOOK_AHEAD and (following := next(coming, None)) is not None:
            number, (part, offset, length) = following
            # Of equal lengths the earliest is the last in order, which is the first to be taken.
            insort(at_hand, _Document(length, -number, part, offset))
        return carried is not None or bool(at_hand)

    while refill():
        row: list[tuple[int, int, int]] = []
        room = width
        while room and refill():
            if carried is not None:
                (part, offset, length), carried = carried, None
            else:
                fitting = bisect_right(at_hand, room, key=lambda document: document.length)
                chosen = at_hand.pop(fitting - 1 if fitting and row else -1)
                part, offset, length = chosen.part, chosen.offset, chosen.length
            taken = min(length, room)
            row.append((part, offset, taken))
            room -= taken
            if taken < length:
                carried = (part, offset + taken, length - taken)
        yield row, room
