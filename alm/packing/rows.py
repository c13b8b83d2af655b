"""Plans the rows: the tokens of the parts that go into each shard. Lengths alone decide; no ids are read.

`concat`: all documents of a split form one stream. Row r starts at r x seq_len and reads seq_len + 1 tokens, so every
token but the first of the split is predicted once.

`bestfit`: rows of seq_len + 1 tokens start with a document and are filled with complete ones (best fit; Ding et al.
2024, "Fewer Truncations Improve Language Modeling", section 3.2, with a bounded look-ahead, and with pairs that fill a
row exactly, because rows are not padded). If none fits, one is cut, and its rest begins the next row, so no token is
lost. Only the last row of a source is padded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOOK_AHEAD = 4096  # documents that bestfit chooses from, which bounds its memory

Pieces = NDArray[np.int64]
"""Shape (n, 3): part, first token in it, number of tokens."""
Piece = tuple[int, int, int]
"""One row of `Pieces`."""
PADDING = -1
"""The part of a piece that belongs to no text."""


@dataclass(frozen=True)
class Span:
    """The tokens of one part, all of one source."""

    part: int
    source: str
    tokens: int


@dataclass(frozen=True)
class PlannedShard:
    """Pieces of one shard, some of them padding, and the number of rows that start in it."""

    source: str
    pieces: Pieces
    sequences: int

    @property
    def tokens(self) -> int:
        """Number of tokens, including the padding."""
        return int(self.pieces[:, 2].sum())

    @property
    def padding(self) -> int:
        """Number of padding tokens."""
        return int(self.pieces[self.pieces[:, 0] == PADDING, 2].sum())


def concat(spans: Iterable[Span], *, seq_len: int, sequences_per_shard: int) -> Iterator[PlannedShard]:
    """Plan the shards of one split. Tokens that do not fill a last row are left out: the tail."""
    spans = list(spans)
    rows = max(0, (sum(span.tokens for span in spans) - 1) // seq_len)
    left = rows * seq_len + 1 if rows else 0  # the last row also reads one token more, as its last target
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


def bestfit(
    documents: Iterable[Piece], *, source: str, seq_len: int, sequences_per_shard: int
) -> Iterator[PlannedShard]:
    """Plan the shards of one source in one split from its `documents` (part, first token, tokens), in order."""
    rows: list[list[Piece]] = []
    for row, missing in _rows(documents, seq_len + 1):
        rows.append([*row, (PADDING, 0, missing)] if missing else row)
        if len(rows) == sequences_per_shard or missing:
            yield _shard_of(rows, source)
            rows = []
    if rows:
        yield _shard_of(rows, source)


def whole(documents: Iterable[Piece], *, source: str, seq_len: int, sequences_per_shard: int) -> Iterator[PlannedShard]:
    """Plan the shards of one source in one split from `documents`, each of which fits into a row and stays whole.

    Best fit decreasing: the longest first, each into the row with the least room that has enough. Rows end in padding.
    """
    width = seq_len + 1
    rows: list[list[Piece]] = []
    with_room: list[list[int]] = [[] for _ in range(width + 1)]  # the rows by their room
    is_there = np.zeros(width + 1, dtype=bool)
    for piece in sorted(documents, key=lambda piece: -piece[2]):
        room = piece[2] + int(np.argmax(is_there[piece[2] :]))
        if is_there[room]:
            number = with_room[room].pop()
            is_there[room] = bool(with_room[room])
            rows[number].append(piece)
        else:
            number, room = len(rows), width
            rows.append([piece])
        with_room[room - piece[2]].append(number)
        is_there[room - piece[2]] = True
    for room, numbers in enumerate(with_room):
        for number in numbers if room else ():
            rows[number].append((PADDING, 0, room))
    for start in range(0, len(rows), sequences_per_shard):
        yield _shard_of(rows[start : start + sequences_per_shard], source)


def _shard_of(rows: Sequence[Sequence[Piece]], source: str) -> PlannedShard:
    return PlannedShard(source, np.array([piece for row in rows for piece in row], dtype=np.int64), len(rows))


def _rows(documents: Iterable[Piece], width: int) -> Iterator[tuple[list[Piece], int]]:
    """Yield the pieces of each row and its number of missing tokens, which is 0 for all but the last."""
    at_hand = _AtHand(documents, width)
    carried: Piece | None = None
    while carried is not None or at_hand.refill():
        row: list[Piece] = []
        room = width
        while room and (carried is not None or at_hand.refill()):
            if carried is not None:
                (part, offset, length), carried = carried, None
            else:
                part, offset, length = at_hand.take(room, is_first=not row)
            taken = min(length, room)
            row.append((part, offset, taken))
            room -= taken
            if taken < length:
                carried = (part, offset + taken, length - taken)
        yield row, room


class _AtHand:
    """Documents to choose from: those longer than a row in order, the others by length, the earliest first."""

    def __init__(self, documents: Iterable[Piece], width: int) -> None:
        self._coming = iter(documents)
        self._long: deque[Piece] = deque()
        self._short: list[deque[Piece]] = [deque() for _ in range(width + 1)]
        self._is_there = np.zeros(width + 1, dtype=bool)  # by length
        self._count = 0

    def refill(self) -> bool:
        """Read documents up to the look-ahead. Return whether any are left."""
        while self._count < LOOK_AHEAD and (piece := next(self._coming, None)) is not None:
            self._count += 1
            if piece[2] < len(self._short):
                self._short[piece[2]].append(piece)
                self._is_there[piece[2]] = True
            else:
                self._long.append(piece)
        return self._count > 0

    def take(self, room: int, *, is_first: bool) -> Piece:
        """Return the next document for `room`: one that fills it alone or with one other, else the longest that fits.

        If none fits, return one that is longer than a row and must be cut anyway, else the longest.
        """
        self._count -= 1
        if is_first and self._long:
            return self._long.popleft()
        lengths = self._is_there[: room + 1]
        if lengths[room]:
            return self._pop(room)
        # Two lengths that add up to `room`: of each pair the longer, the most equal pairs first. Two candidates are
        # enough, because only a pair of equal lengths can lack its second document.
        for longer in np.flatnonzero((lengths & lengths[::-1])[-(-room // 2) :])[:2] + -(-room // 2):
            if 2 * longer > room or len(self._short[longer]) > 1:
                return self._pop(int(longer))
        fitting = np.flatnonzero(lengths)
        if len(fitting):
            return self._pop(int(fitting[-1]))
        if self._long:
            return self._long.popleft()
        return self._pop(int(np.flatnonzero(self._is_there)[-1]))

    def _pop(self, length: int) -> Piece:
        found = self._short[length].popleft()
        self._is_there[length] = bool(self._short[length])
        return found
