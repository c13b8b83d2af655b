"""Counts distinct words in compiled code.

A slot of the table is four integers: the first eight bytes of a word; its last eight bytes; its length (high 32 bits)
with its number plus one (low 32 bits), 0 in an empty slot; and its count. Word i is `pool[offsets[i]:offsets[i + 1]]`.
Probing is linear.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from alm.tokenizers._kernels.compiling import inlined, kernel
from alm.tokenizers._kernels.memory import ends_of, home_of
from alm.tokenizers._kernels.text import PATTERN_CODES, classes, equal_spans, hash_span, word_end
from alm.tokenizers.model import Bounds, Bytes
from alm.tokenizers.words import PADDING, Words

_FIRST_SLOTS = 1 << 15
_FIRST_POOL = 1 << 18
_LOW_32 = np.int64(0xFFFFFFFF)

_DONE, _TABLE_FULL, _POOL_FULL = range(3)
_DOCUMENT, _AT, _WORDS = range(3)


@inlined
def find_word(table, offsets, pool, data, at, length, first, last):
    """Return the place in `table` of the word `data[at:at + length]`, or of the empty slot where it belongs."""
    place = home_of(table, first, last, length)
    while True:
        entry = table[place + 2]
        if (table[place] == first) & (table[place + 1] == last) & ((entry >> 32) == length):
            # Up to sixteen bytes, the first and last eight are the complete word: no look-up in the pool.
            if length <= 16 or equal_spans(pool, offsets[(entry & _LOW_32) - 1], data, at, length):
                return place
        elif entry == 0:
            return place
        place = (place + 4) & (table.size - 1)


@inlined
def add_word(data, at, length, count, table, offsets, pool, words):
    """Count a word. Return the new number of distinct words. There must be room for one more."""
    first, last = ends_of(data, at, length)
    place = find_word(table, offsets, pool, data, at, length, first, last)
    table[place + 3] += count
    if table[place + 2] == 0:
        start = offsets[words]
        for i in range(length):
            pool[start + i] = data[at + i]
        words += 1
        offsets[words] = start + length
        table[place], table[place + 1] = first, last
        table[place + 2] = (np.int64(length) << 32) | words
    return words


@kernel
def count_words(data, bounds, classes, pattern, table, offsets, pool, state):
    """Count the words of texts until all are counted or an array is full. Return which."""
    document, at, words = state[_DOCUMENT], state[_AT], state[_WORDS]
    outcome = _DONE
    while document < bounds.size - 1:
        stop = bounds[document + 1]
        while at < stop:
            end = word_end(data, at, stop, classes, pattern)
            if words + 1 >= offsets.size:
                outcome = _TABLE_FULL
                break
            if offsets[words] + end - at + PADDING > pool.size:
                outcome = _POOL_FULL
                break
            words = add_word(data, at, end - at, np.int64(1), table, offsets, pool, words)
            at = end
        if outcome != _DONE:
            break
        document += 1
    state[_DOCUMENT], state[_AT], state[_WORDS] = document, at, words
    return outcome


@kernel
def add_words(data, starts, counts, table, offsets, pool, state):
    """Add the counts of another counter. There must be room for all its words."""
    words = state[_WORDS]
    for i in range(counts.size):
        words = add_word(data, starts[i], starts[i + 1] - starts[i], counts[i], table, offsets, pool, words)
    state[_WORDS] = words


@kernel
def move_slots(table, larger):
    """Copy every filled slot of `table` into the empty table `larger`."""
    for old in range(0, table.size, 4):
        entry = table[old + 2]
        if entry != 0:
            place = home_of(larger, table[old], table[old + 1], entry >> 32)
            while larger[place + 2] != 0:
                place = (place + 4) & (larger.size - 1)
            for i in range(4):
                larger[place + i] = table[old + i]


@kernel
def counts_and_hashes(table, offsets, pool, counts, hashes):
    """Write the count and a hash of each word, by its number."""
    for place in range(0, table.size, 4):
        entry = table[place + 2]
        if entry != 0:
            number = (entry & _LOW_32) - 1
            counts[number] = table[place + 3]
            hashes[number] = hash_span(pool, offsets[number], entry >> 32)


class WordCounter:
    """Counts the words of texts, in one thread at a time. `add` merges the counters of several threads."""

    def __init__(self, pattern: str) -> None:
        self._pattern, self._classes = PATTERN_CODES[pattern], classes(pattern)
        self._table = np.zeros(4 * _FIRST_SLOTS, dtype=np.int64)
        self._offsets = np.zeros(_FIRST_SLOTS // 2 + 1, dtype=np.int64)
        self._pool = np.zeros(_FIRST_POOL, dtype=np.uint8)
        self._state = np.zeros(3, dtype=np.int64)

    def feed(self, data: Bytes, bounds: Bounds) -> None:
        """Count the words of the texts `data[bounds[i]:bounds[i + 1]]`. `PADDING` bytes follow the last."""
        self._state[_DOCUMENT], self._state[_AT] = 0, bounds[0]
        while outcome := count_words(
            data, bounds, self._classes, self._pattern, self._table, self._offsets, self._pool, self._state
        ):
            if outcome == _TABLE_FULL:
                self._grow_table(2 * len(self._offsets))
            else:
                rest_of_text = int(bounds[self._state[_DOCUMENT] + 1] - self._state[_AT])
                self._grow_pool(len(self._pool) + min(rest_of_text, len(data)) + PADDING)

    def add(self, other: WordCounter) -> None:
        """Add the counts of another counter."""
        theirs = other.words()
        words = int(self._state[_WORDS])
        self._grow_table(words + len(theirs) + 1)
        self._grow_pool(int(self._offsets[words] + theirs.offsets[-1]) + PADDING)
        add_words(theirs.data, theirs.offsets, theirs.counts, self._table, self._offsets, self._pool, self._state)

    def words(self) -> Words:
        """Return all words in the order that `Words` promises: by count, then by hash."""
        number = int(self._state[_WORDS])
        counts, hashes = np.zeros(number, dtype=np.int64), np.zeros(number, dtype=np.uint64)
        counts_and_hashes(self._table, self._offsets, self._pool, counts, hashes)
        order = np.lexsort((hashes, -counts))
        return Words(*gathered(self._pool, self._offsets[: number + 1], order), counts[order])

    def _grow_table(self, words: int) -> None:
        room = len(self._offsets) - 1
        while room < words:
            room *= 2
        if room >= len(self._offsets):
            larger = np.zeros(8 * room, dtype=np.int64)
            move_slots(self._table, larger)
            self._table = larger
            self._offsets = _longer(self._offsets, room + 1)

    def _grow_pool(self, least: int) -> None:
        if least > len(self._pool):
            self._pool = _longer(self._pool, max(least, len(self._pool) * 3 // 2))


@kernel
def gather(pool, offsets, order, data, starts):
    """Copy word `order[i]` to place i, and write the start of each place."""
    at = np.int64(0)
    for i in range(order.size):
        for q in range(offsets[order[i]], offsets[order[i] + 1]):
            data[at] = pool[q]
            at += 1
        starts[i + 1] = at


def gathered(pool: Bytes, offsets: Bounds, order: np.ndarray) -> tuple[Bytes, Bounds]:
    """Return the words in another order: their bytes, followed by `PADDING` zeros, and their offsets."""
    starts = np.zeros(len(order) + 1, dtype=np.int64)
    lengths = np.diff(offsets)
    data = np.zeros(int(lengths[order].sum()) + PADDING, dtype=np.uint8)
    gather(pool, offsets, order, data, starts)
    return data, starts


def _longer(array: np.ndarray, size: int) -> np.ndarray:
    longer = np.zeros(size, dtype=array.dtype)
    longer[: len(array)] = array
    return longer


def joined(texts: Iterable[str]) -> tuple[Bytes, Bounds]:
    """Return texts in the form that kernels take: all bytes, followed by `PADDING` zeros, and the offsets of each."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    bounds = np.zeros(len(encoded) + 1, dtype=np.int64)
    bounds[1:] = np.cumsum([len(text) for text in encoded])
    encoded.append(bytes(PADDING))
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), bounds
