"""Which token goes where: no token is lost or doubled, whatever the documents and the sizes."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from cases import for_each

from alm.packing import rows
from alm.packing.rows import PADDING, PlannedShard, Span, bestfit, concat


def tokens_of(shards: list[PlannedShard]) -> list[tuple[int, int]]:
    """(part, token) in the order in which they are stored."""
    return [
        (part, offset + n)
        for shard in shards
        for part, offset, length in shard.pieces.tolist()
        for n in range(length)
        if part != PADDING
    ]


@for_each("seed", range(60))
def test_concat_stores_a_prefix_of_the_stream(seed: int) -> None:
    draw = random.Random(seed)
    seq_len, per_shard = draw.choice([2, 3, 7, 16]), draw.choice([1, 2, 5])
    names = sorted(draw.choices("abc", k=draw.randrange(0, 8)))
    spans = [Span(n, name, draw.choice([0, 1, 2, 5, 40, 100])) for n, name in enumerate(names)]
    shards = list(concat(spans, seq_len=seq_len, sequences_per_shard=per_shard))
    stream = [(span.part, n) for span in spans for n in range(span.tokens)]
    stored = tokens_of(shards)
    assert stored == stream[: len(stored)]
    whole = max(0, (len(stream) - 1) // seq_len)
    assert len(stored) == (whole * seq_len + 1 if whole else 0)
    assert sum(shard.sequences for shard in shards) == whole
    source = {span.part: span.source for span in spans}
    assert all({source[part] for part in shard.pieces[:, 0].tolist()} == {shard.source} for shard in shards)
    assert all(0 < shard.tokens <= seq_len * per_shard for shard in shards)
    assert all(shard.padding == 0 for shard in shards)


def documents(draw: random.Random, count: int, longest: int) -> list[tuple[int, int, int]]:
    found, place = [], [0, 0]
    for number in range(count):
        part = int(number > count // 2)
        length = draw.choice([1, 1, 2, draw.randrange(1, longest)])
        found.append((part, place[part], length))
        place[part] += length
    return found


@for_each("seed", range(60))
def test_bestfit_stores_every_token_once_and_pads_only_the_last_row(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr(rows, "LOOK_AHEAD", draw.choice([1, 3, 1000]))
    seq_len, per_shard = draw.choice([2, 5, 16]), draw.choice([1, 2, 5])
    given = documents(draw, draw.choice([0, 1, 2, 50]), draw.choice([2, 10, 70]))
    shards = list(bestfit(given, source="s", seq_len=seq_len, sequences_per_shard=per_shard))
    every = [(part, offset + n) for part, offset, length in given for n in range(length)]
    assert sorted(tokens_of(shards)) == sorted(every)
    assert all(shard.tokens == shard.sequences * (seq_len + 1) for shard in shards)
    assert all(shard.sequences == per_shard for shard in shards[:-1])
    assert all(shard.padding == 0 for shard in shards[:-1])
    assert sum(shard.padding for shard in shards) < seq_len + 1
    assert sum(shard.sequences for shard in shards) == -(-len(every) // (seq_len + 1))


def row_pieces(shards: list[PlannedShard], width: int) -> list[list[tuple[int, int]]]:
    """(offset, length) of each row's pieces, of documents in one part."""
    found: list[list[tuple[int, int]]] = []
    room = 0
    for shard in shards:
        for _, offset, length in shard.pieces.tolist():
            if not room:
                found.append([])
                room = width
            found[-1].append((offset, length))
            room -= length
    return found


@for_each("seed", range(20))
def test_what_is_left_of_a_cut_document_begins_the_next_row(seed: int) -> None:
    draw = random.Random(seed)
    lengths = [draw.randrange(1, 60) for _ in range(200)]
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    given = [(0, start, length) for start, length in zip(starts, lengths, strict=True)]
    shards = list(bestfit(given, source="s", seq_len=31, sequences_per_shard=4))
    ends = {start + length for start, length in zip(starts, lengths, strict=True)}
    found = row_pieces(shards, 32)
    for row, following in pairwise(found):
        offset, length = row[-1]
        assert all(at in set(starts) for at, _ in row[1:])  # only a row's first piece may be what is left of one
        if offset + length not in ends:
            assert following[0][0] == offset + length
        else:
            assert following[0][0] in set(starts)


def test_short_documents_are_hardly_ever_cut() -> None:
    draw = random.Random(1)
    lengths = [min(512, max(20, int(draw.lognormvariate(5.3, 0.5)))) for _ in range(20_000)]
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    given = [(0, start, length) for start, length in zip(starts, lengths, strict=True)]
    found = row_pieces(list(bestfit(given, source="s", seq_len=512, sequences_per_shard=64)), 513)
    begins = set(starts)
    assert sum(row[0][0] in begins for row in found) > 0.8 * len(found)  # where a stream is cut, one in 200


def test_documents_that_fill_rows_are_not_cut() -> None:
    lengths = [3, 6, 4, 4, 2, 5, 8]  # 3 + 5, 6 + 2, 4 + 4, 8
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    given = [(0, start, length) for start, length in zip(starts, lengths, strict=True)]
    shards = list(bestfit(given, source="s", seq_len=7, sequences_per_shard=100))
    assert [[length for _, length in row] for row in row_pieces(shards, 8)] == [[8], [4, 4], [5, 3], [6, 2]]
