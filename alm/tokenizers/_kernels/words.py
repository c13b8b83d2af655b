"""Counting distinct words in compiled code.

The table has two integers a slot: the hash of a word, and its length (high 32 bits) with its number plus one (low 32
bits), 0 in an empty slot. Word i is `pool[offsets[i]:offsets[i + 1]]`. Slots are probed one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from alm.tokenizers._kernels.compiling import inlined, kernel
from alm.tokenizers._kernels.text import PATTERN_CODES, classes, equal_spans, hash_span, word_end
from alm.tokenizers.model import Bounds, Bytes
from alm.tokenizers.words import PADDING, Words

_FIRST_SLOTS = 1 << 15
_FIRST_POOL = 1 << 18
_NUMBER_BITS = np.uint64(0xFFFFFFFF)

_DONE, _TABLE_FULL, _POOL_FULL = range(3)
_DOCUMENT, _AT, _WORDS = range(3)


@inlined
def find_word(table, offsets, pool, data, at, length, hash_):
    """The slot of the word `data[at:at + length]`, or the empty one where it belongs."""
    last = (table.size >> 1) - 1
    slot = np.int64(hash_) & last
    while True:
        entry = table[2 * slot + 1]
        if entry == np.uint64(0):
            return slot
        if table[2 * slot] == hash_ and np.int64(entry >> np.uint64(32)) == length:
            # The hash of up to eight bytes is the word.
            if length <= 8:
                return slot
            number = np.int64(entry & _NUMBER_BITS) - 1
            if equal_spans(pool, offsets[number], data, at, length):
                return slot
        slot = (slot + 1) & last


@inlined
def add_word(data, at, length, count, table, offsets, counts, pool, words):
    """Count a word; returns how many there are then. There must be room for one more."""
    hash_ = hash_span(data, at, length)
    slot = find_word(table, offsets, pool, data, at, length, hash_)
    number = np.int64(table[2 * slot + 1] & _NUMBER_BITS)
    if number > 0:
        counts[number - 1] += count
        return words
    start = offsets[words]
    for i in range(length):
        pool[start + i] = data[at + i]
    counts[words] = count
    words += 1
    offsets[words] = start + length
    table[2 * slot] = hash_
    table[2 * slot + 1] = (np.uint64(length) << np.uint64(32)) | np.uint64(words)
    return words


@kernel
def count_words(data, bounds, classes, pattern, table, offsets, counts, pool, state):
    """Count the words of texts until all are counted or an array is full, which the result tells."""
    document, at, words = state[_DOCUMENT], state[_AT], state[_WORDS]
    outcome = _DONE
    while document < bounds.size - 1:
        stop = bounds[document + 1]
        while at < stop:
            end = word_end(data, at, stop, classes, pattern)
            if words >= counts.size:
                outcome = _TABLE_FULL
                break
            if offsets[words] + end - at + PADDING > pool.size:
                outcome = _POOL_FULL
                break
            words = add_word(data, at, end - at, np.int64(1), table, offsets, counts, pool, words)
            at = end
        if outcome != _DONE:
            break
        document += 1
    state[_DOCUMENT], state[_AT], state[_WORDS] = document, at, words
    return outcome


@kernel
def add_words(data, starts, added, table, offsets, counts, pool, state):
    """Count words that were counted elsewhere. There must be room for all of them."""
    words = state[_WORDS]
    for i in range(added.size):
        length = starts[i + 1] - starts[i]
        words = add_word(data, starts[i], length, added[i], table, offsets, counts, pool, words)
    state[_WORDS] = words


@kernel
def move_slots(table, larger):
    """Put every filled slot of `table` into the empty table `larger`."""
    last = (larger.size >> 1) - 1
    for i in range(table.size >> 1):
        if table[2 * i + 1] != np.uint64(0):
            slot = np.int64(table[2 * i]) & last
            while larger[2 * slot + 1] != np.uint64(0):
                slot = (slot + 1) & last
            larger[2 * slot] = table[2 * i]
            larger[2 * slot + 1] = table[2 * i + 1]


class WordCounter:
    """Counts the words of texts. One thread at a time; counters of several are added up with `add`."""

    def __init__(self, pattern: str) -> None:
        self._pattern = PATTERN_CODES[pattern]
        self._table = np.zeros(2 * _FIRST_SLOTS, dtype=np.uint64)
        self._offsets = np.zeros(_FIRST_SLOTS // 2 + 1, dtype=np.int64)
        self._counts = np.zeros(_FIRST_SLOTS // 2, dtype=np.int64)
        self._pool = np.zeros(_FIRST_POOL, dtype=np.uint8)
        self._state = np.zeros(3, dtype=np.int64)

    def feed(self, data: Bytes, bounds: Bounds) -> None:
        """Count the words of the texts `data[bounds[i]:bounds[i + 1]]`; `PADDING` bytes follow the last."""
        self._state[_DOCUMENT], self._state[_AT] = 0, bounds[0]
        while outcome := count_words(
            data, bounds, classes(), self._pattern, self._table, self._offsets, self._counts, self._pool, self._state
        ):
            if outcome == _TABLE_FULL:
                self._grow_table(2 * len(self._counts))
            else:
                rest_of_text = int(bounds[self._state[_DOCUMENT] + 1] - self._state[_AT])
                self._grow_pool(len(self._pool) + min(rest_of_text, len(data)) + PADDING)

    def add(self, other: WordCounter) -> None:
        """Add what another counter has counted."""
        words, added = int(self._state[_WORDS]), int(other._state[_WORDS])
        if words + added > len(self._counts):
            self._grow_table(words + added)
        self._grow_pool(int(self._offsets[words] + other._offsets[added]) + PADDING)
        add_words(
            other._pool,
            other._offsets[: added + 1],
            other._counts[:added],
            self._table,
            self._offsets,
            self._counts,
            self._pool,
            self._state,
        )

    def words(self) -> Words:
        """Everything counted, in the order that `Words` promises."""
        count = int(self._state[_WORDS])
        counts, offsets = self._counts[:count], self._offsets[: count + 1]
        order = _canonical_order(self._table, counts)
        return Words(*gathered(self._pool, offsets, order), counts[order])

    def _grow_table(self, words: int) -> None:
        capacity = len(self._counts)
        while capacity < words:
            capacity *= 2
        larger = np.zeros(4 * capacity, dtype=np.uint64)
        move_slots(self._table, larger)
        self._table = larger
        self._offsets = _longer(self._offsets, capacity + 1)
        self._counts = _longer(self._counts, capacity)

    def _grow_pool(self, least: int) -> None:
        if least > len(self._pool):
            self._pool = _longer(self._pool, max(least, len(self._pool) * 3 // 2))


def _canonical_order(table: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Indices of the words by count, highest first, then by hash: the same however they were counted."""
    hashes = np.empty(len(counts), dtype=np.uint64)
    filled = np.flatnonzero(table[1::2])
    hashes[(table[1::2][filled] & _NUMBER_BITS).astype(np.int64) - 1] = table[::2][filled]
    return np.lexsort((hashes, -counts))


@kernel
def gather(pool, offsets, order, data, starts):
    """Copy word `order[i]` to place i, and note where each place begins."""
    at = np.int64(0)
    for i in range(order.size):
        for q in range(offsets[order[i]], offsets[order[i] + 1]):
            data[at] = pool[q]
            at += 1
        starts[i + 1] = at


def gathered(pool: Bytes, offsets: Bounds, order: np.ndarray) -> tuple[Bytes, Bounds]:
    """The words in another order: their bytes with `PADDING` zeros behind, and where each begins."""
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
    """Texts as kernels take them: all bytes with `PADDING` zeros behind, and where each text begins."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    bounds = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(text) for text in encoded], out=bounds[1:]) if encoded else None
    encoded.append(bytes(PADDING))
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), bounds
