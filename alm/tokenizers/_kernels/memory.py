"""Cache of the words that an encoder has met, with their ids, so that most of a text costs one look-up per word.

A slot of the table is four integers: the first eight bytes of the word; its last eight bytes; its length (8 bits), the
number of its ids (8 bits) and their start in `ids`, or the id itself if there is only one (48 bits); and the start of
its bytes in `pool`, if it is longer than sixteen. An empty slot has 0 in the third. Words of more than `MOST_BYTES` are
not cached.
"""

from __future__ import annotations

import numpy as np

from alm.tokenizers._kernels.compiling import inlined, kernel
from alm.tokenizers._kernels.text import ODD, equal_spans, load_8, mixed

MOST_BYTES = 64

_FIRST_WORDS = 1 << 13
_MOST_WORDS = 1 << 20
_LOW_48 = np.int64(0xFFFFFFFFFFFF)

_WORDS, _POOL, _IDS = range(3)


@inlined
def ends_of(data, at, length):
    """Return the first and last eight bytes of a word as integers; both are the complete word if it is that short."""
    kept = ~np.uint64(0) >> np.uint64(64 - 8 * min(length, 8))
    return np.int64(load_8(data, at) & kept), np.int64(load_8(data, at + max(length - 8, 0)) & kept)


@inlined
def home_of(table, first, last, length):
    """Return the place in `table` where the search for a word starts."""
    spread = mixed(np.uint64(first) ^ (np.uint64(last) * ODD) ^ (np.uint64(length) << np.uint64(56)))
    return (np.int64(spread) & ((table.size >> 2) - 1)) << 2


@inlined
def recalled(table, pool, data, at, length, first, last):
    """Return the place in `table` of the word `data[at:at + length]`, or of the empty slot where it belongs."""
    place = home_of(table, first, last, length)
    while True:
        entry = table[place + 2]
        if (table[place] == first) & (table[place + 1] == last) & ((entry >> 56) == length):
            if length <= 16 or equal_spans(pool, table[place + 3], data, at, length):
                return place
        elif entry == 0:
            return place
        place = (place + 4) & (table.size - 1)


@inlined
def copy_ids(entry, ids, out, position):
    """Write the ids of a cached word. Return the position after them."""
    many = (entry >> 48) & 0xFF
    first = entry & _LOW_48
    if many == 1:
        out[position] = np.int32(first)
        return position + 1
    for i in range(many):
        out[position + i] = ids[first + i]
    return position + many


@kernel
def remember(table, pool, ids, state, place, first, last, data, at, length, out, position, many):
    """Cache the ids `out[position:position + many]` of a word, if there is room for it."""
    words, used, listed = state[_WORDS], state[_POOL], state[_IDS]
    if 2 * words >= table.size >> 2 or used + length + 8 > pool.size or listed + many > ids.size:
        return
    value = np.int64(out[position])
    if many > 1:
        value = listed
        for i in range(many):
            ids[listed + i] = out[position + i]
        state[_IDS] += many
    if length > 16:
        for i in range(length):
            pool[used + i] = data[at + i]
        state[_POOL] += length
    table[place], table[place + 1] = first, last
    table[place + 2] = (np.int64(length) << 56) | (np.int64(many) << 48) | value
    table[place + 3] = used
    state[_WORDS] += 1


@kernel
def move_entries(table, larger):
    """Copy every filled slot of `table` into the empty table `larger`."""
    for old in range(0, table.size, 4):
        entry = table[old + 2]
        if entry != 0:
            place = home_of(larger, table[old], table[old + 1], entry >> 56)
            while larger[place + 2] != 0:
                place = (place + 4) & (larger.size - 1)
            for i in range(4):
                larger[place + i] = table[old + i]


class Memory:
    """The arrays of the cache. They grow up to a limit, after which no more words are cached."""

    def __init__(self) -> None:
        self.state = np.zeros(3, dtype=np.int64)
        self._allocate(_FIRST_WORDS)
        self.pool = np.zeros(self._room * 4, dtype=np.uint8)
        self.ids = np.zeros(self._room * 3, dtype=np.int32)

    def grow(self) -> None:
        """Grow the arrays if little room is left. Call it regularly."""
        while 4 * self.state[_WORDS] > 3 * self._room and self._room < _MOST_WORDS:
            before = self.table
            self._allocate(2 * self._room)
            move_entries(before, self.table)
        if 2 * self.state[_POOL] > len(self.pool):
            self.pool = np.concatenate([self.pool, np.zeros_like(self.pool)])
        if 2 * self.state[_IDS] > len(self.ids):
            self.ids = np.concatenate([self.ids, np.zeros_like(self.ids)])

    def _allocate(self, words: int) -> None:
        self._room = words
        self.table = np.zeros(8 * words, dtype=np.int64)
