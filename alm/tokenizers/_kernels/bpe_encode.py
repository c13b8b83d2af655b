"""Byte pair encoding in compiled code: of all pairs in a word, the one merged first in training is joined first."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from alm.tokenizers._kernels.compiling import inlined, kernel
from alm.tokenizers._kernels.memory import MOST_BYTES, Memory, copy_ids, ends_of, recalled, remember
from alm.tokenizers._kernels.text import ODD, PATTERN_CODES, classes, equal_spans, hash_span, mixed, word_end
from alm.tokenizers.model import Bounds, Bytes, Ids
from alm.tokenizers.words import PADDING

_NEVER = np.int64(0x7FFFFFFFFFFFFFFF)
_SHORT = 48  # symbols; up to this many, trying all pairs is faster than a heap
_TEXT_PER_CALL = 1 << 22

_DONE, _OUT_FULL, _MEMORY_FULL, _SCRATCH_FULL = range(4)
_TEXT, _AT, _POSITION, _NEEDED = range(4)


@inlined
def home_of_pair(ranks, left, right):
    """Return two symbols as one integer, and the place in `ranks` where the search for them starts."""
    pair = (np.int64(left) << 32) | np.int64(right)
    return pair, (np.int64(mixed(np.uint64(pair) * ODD)) << 1) & (ranks.size - 1)


@inlined
def rank_of(ranks, left, right):
    """Return the rank of a pair of symbols (high 32 bits) and the joined id (low 32 bits); `_NEVER` if never joined.

    A slot of `ranks` is two integers, the pair and its rank, so that a look-up touches one cache line.
    """
    pair, place = home_of_pair(ranks, left, right)
    while ranks[place] != pair:
        if ranks[place + 1] == _NEVER:
            return _NEVER
        place = (place + 2) & (ranks.size - 1)
    return ranks[place + 1]


@kernel
def fill_ranks(merges, ranks):
    """Enter each merge (left, right, made) with its rank. Of duplicate pairs, the first wins."""
    ranks[1::2] = _NEVER
    for rank in range(merges.shape[0]):
        pair, place = home_of_pair(ranks, merges[rank, 0], merges[rank, 1])
        while ranks[place + 1] != _NEVER and ranks[place] != pair:
            place = (place + 2) & (ranks.size - 1)
        if ranks[place + 1] == _NEVER:
            ranks[place] = pair
            ranks[place + 1] = (np.int64(rank) << 32) | np.int64(merges[rank, 2])


@inlined
def slot_of_whole(slots, starts, pool, data, at, length):
    """Return the place in `slots` of the word `data[at:at + length]`, or of the empty slot where it belongs.

    A slot is two integers: a hash of the word, and its number plus one, 0 if empty. Word i is
    `pool[starts[i]:starts[i + 1]]`.
    """
    value = np.int64(hash_span(data, at, length))
    place = (value << 1) & (slots.size - 1)
    while slots[place + 1] != 0:
        start = starts[slots[place + 1] - 1]
        is_alike = slots[place] == value and starts[slots[place + 1]] - start == length
        if is_alike and equal_spans(pool, start, data, at, length):
            break
        place = (place + 2) & (slots.size - 1)
    return place


@kernel
def fill_whole(slots, starts, pool):
    """Enter each word of `pool`."""
    for number in range(starts.size - 1):
        length = starts[number + 1] - starts[number]
        place = slot_of_whole(slots, starts, pool, pool, starts[number], length)
        slots[place] = np.int64(hash_span(pool, starts[number], length))
        slots[place + 1] = number + 1


@kernel
def symbols_of(data, at, stop, byte_ids, character_ids, out, position):
    """Write the initial ids of a word: of each character if it has one, else of its bytes. Return the next position."""
    while at < stop:
        byte = np.int64(data[at])
        length = 1
        id_ = np.int32(-1)
        if character_ids.size > 0:
            length = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            point = byte if length == 1 else byte & (0x7F >> length)
            for i in range(1, length):
                point = (point << 6) | (np.int64(data[at + i]) & 0x3F)
            id_ = character_ids[point]
        if id_ >= 0:
            out[position] = id_
            position += 1
        else:
            for i in range(length):
                id_ = byte_ids[data[at + i]]
                if id_ >= 0:  # a byte without a token is dropped
                    out[position] = id_
                    position += 1
        at += length
    return position


@kernel
def join_short(symbols, start, count, found, ranks):
    """Join in place, searching all pairs each time. Return the number of symbols left."""
    for i in range(count - 1):
        found[i] = rank_of(ranks, symbols[start + i], symbols[start + i + 1])
    while count > 1:
        best, at = found[0], 0
        for i in range(1, count - 1):
            if found[i] < best:
                best, at = found[i], i
        if best == _NEVER:
            break
        symbols[start + at] = np.int32(best & 0xFFFFFFFF)
        count -= 1
        for i in range(at + 1, count):
            symbols[start + i] = symbols[start + i + 1]
            found[i - 1] = found[i]
        if at < count - 1:
            found[at] = rank_of(ranks, symbols[start + at], symbols[start + at + 1])
        if at > 0:
            found[at - 1] = rank_of(ranks, symbols[start + at - 1], symbols[start + at])
    return count


@kernel
def heap_push(heap, size, rank, at):
    """Add a joint of `rank` at place `at`. The smallest rank comes first, then the leftmost place."""
    hole = size
    while hole > 0:
        parent = (hole - 1) >> 2
        if heap[parent, 0] < rank or (heap[parent, 0] == rank and heap[parent, 1] < at):
            break
        heap[hole, 0], heap[hole, 1] = heap[parent, 0], heap[parent, 1]
        hole = parent
    heap[hole, 0], heap[hole, 1] = rank, at


@kernel
def heap_drop(heap, size):
    """Remove the first of `size` entries. Return the new size."""
    size -= 1
    rank, at = heap[size, 0], heap[size, 1]
    hole = 0
    while True:
        best = 4 * hole + 1
        if best >= size:
            break
        for child in range(best + 1, min(best + 4, size)):
            if heap[child, 0] < heap[best, 0] or (heap[child, 0] == heap[best, 0] and heap[child, 1] < heap[best, 1]):
                best = child
        if rank < heap[best, 0] or (rank == heap[best, 0] and at < heap[best, 1]):
            break
        heap[hole, 0], heap[hole, 1] = heap[best, 0], heap[best, 1]
        hole = best
    heap[hole, 0], heap[hole, 1] = rank, at
    return size


@kernel
def join_long(symbols, start, count, heap, links, ranks):
    """Join in place with a heap of joints over linked symbols: n log n. Return the number of symbols left.

    `links` has two rows, the previous and the next place. `heap` has room for three joints per symbol.
    """
    size = 0
    for i in range(count):
        links[0, i], links[1, i] = i - 1, i + 1
        if i + 1 < count:
            rank = rank_of(ranks, symbols[start + i], symbols[start + i + 1])
            if rank != _NEVER:
                heap_push(heap, size, rank, i)
                size += 1
    while size > 0:
        rank, at = heap[0, 0], heap[0, 1]
        size = heap_drop(heap, size)
        right = links[1, at]
        # Entries are not removed when a symbol changes; a stale one is recognized here and skipped.
        if symbols[start + at] < 0 or right >= count:
            continue
        if rank_of(ranks, symbols[start + at], symbols[start + right]) != rank:
            continue
        symbols[start + at], symbols[start + right] = np.int32(rank & 0xFFFFFFFF), -1
        following = links[1, right]
        links[1, at] = following
        if following < count:
            links[0, following] = at
        for left, neighbour in ((links[0, at], at), (at, following)):
            if left >= 0 and neighbour < count:
                rank = rank_of(ranks, symbols[start + left], symbols[start + neighbour])
                if rank != _NEVER:
                    heap_push(heap, size, rank, left)
                    size += 1
    kept = 0
    for i in range(count):
        if symbols[start + i] >= 0:
            symbols[start + kept] = symbols[start + i]
            kept += 1
    return kept


@kernel
def encode_texts(
    data, bounds, classes, pattern, byte_ids, character_ids, ranks, slots, starts, whole, whole_ids,
    table, pool, ids, memory_state, found, heap, links, out, offsets, state
):  # fmt: skip
    """Encode texts until all are done or an array is full. Return which."""
    text, at, position = state[_TEXT], state[_AT], state[_POSITION]
    outcome, met = _DONE, memory_state[0]
    # Return regularly, also in the middle of a text, so that the caller can grow the cache of words.
    pause = at + _TEXT_PER_CALL
    while text < bounds.size - 1:
        stop = bounds[text + 1]
        while at < stop:
            end = word_end(data, at, stop, classes, pattern)
            length = end - at
            if position + length > out.size:
                outcome = _OUT_FULL
            elif at > pause or memory_state[0] > 2 * met + 1000:
                outcome = _MEMORY_FULL
            elif length > _SHORT and 3 * length > heap.shape[0]:
                outcome = _SCRATCH_FULL
            if outcome != _DONE:
                state[_NEEDED] = length
                break
            first, last = ends_of(data, at, length)
            place = np.int64(-1)
            if length <= MOST_BYTES:
                place = recalled(table, pool, data, at, length, first, last)
                entry = table[place + 2]
                if entry != 0:
                    position = copy_ids(entry, ids, out, position)
                    at = end
                    continue
            number = np.int64(0)
            if slots.size > 0:
                number = slots[slot_of_whole(slots, starts, whole, data, at, length) + 1]
            count = np.int64(1)
            if number > 0:
                out[position] = whole_ids[number - 1]
            else:
                count = symbols_of(data, at, end, byte_ids, character_ids, out, position) - position
            if count <= _SHORT:
                count = join_short(out, position, count, found, ranks)
            else:
                count = join_long(out, position, count, heap, links, ranks)
            if place >= 0 and count > 0:
                remember(table, pool, ids, memory_state, place, first, last, data, at, length, out, position, count)
            position += count
            at = end
        if outcome != _DONE:
            break
        text += 1
        offsets[text] = position
    state[_TEXT], state[_AT], state[_POSITION] = text, at, position
    return outcome


class Encoder:
    """Encodes texts with the merges of one model. It caches words, so each thread has its own.

    `byte_ids` is the id of each byte. `character_ids` is that of each code point, -1 for none, or empty if bytes are
    the alphabet. A merge is (left id, right id, id of the result). `whole` are words with an id of their own, which
    are not merged.
    """

    def __init__(
        self,
        merges: npt.NDArray[np.int32],
        byte_ids: npt.NDArray[np.int32],
        character_ids: npt.NDArray[np.int32],
        pattern: str,
        whole: Mapping[bytes, int] = MappingProxyType({}),
    ) -> None:
        self._pattern, self._classes = PATTERN_CODES[pattern], classes(pattern)
        self._byte_ids, self._character_ids = byte_ids, character_ids
        slots = 1 << max(4, (2 * len(merges)).bit_length())
        self._ranks = np.zeros(2 * slots, dtype=np.int64)
        fill_ranks(merges, self._ranks)
        self._whole = _entered(whole)
        self._memory = Memory()
        self._found = np.zeros(_SHORT, dtype=np.int64)
        self._scratch(_SHORT)

    def encode(self, data: Bytes, bounds: Bounds) -> tuple[Ids, Bounds]:
        """Return the ids of the texts `data[bounds[i]:bounds[i + 1]]`, and the offsets of each text's ids."""
        out = np.empty(int(bounds[-1] - bounds[0]) // 3 + 1024, dtype=np.int32)
        offsets = np.zeros(len(bounds), dtype=np.int64)
        state = np.array([0, bounds[0], 0, 0], dtype=np.int64)
        memory = self._memory
        while outcome := encode_texts(
            data, bounds, self._classes, self._pattern, self._byte_ids, self._character_ids, self._ranks, *self._whole,
            memory.table, memory.pool, memory.ids, memory.state, self._found, self._heap, self._links,
            out, offsets, state,
        ):  # fmt: skip
            if outcome == _OUT_FULL:
                longer = np.empty(len(out) * 3 // 2 + int(state[_NEEDED]), dtype=np.int32)
                longer[: state[_POSITION]] = out[: state[_POSITION]]
                out = longer
            elif outcome == _SCRATCH_FULL:
                self._scratch(int(state[_NEEDED]))
            memory.grow()
        return out[: state[_POSITION]], offsets

    def _scratch(self, symbols: int) -> None:
        self._heap = np.zeros((3 * symbols + 3, 2), dtype=np.int64)
        self._links = np.zeros((2, symbols + 1), dtype=np.int64)


def _entered(whole: Mapping[bytes, int]) -> tuple[Bounds, Bounds, Bytes, Ids]:
    """Return the slots, starts, bytes and ids of the words that are not merged; no slots for none."""
    pool = np.frombuffer(b"".join(whole) + bytes(PADDING), dtype=np.uint8)
    starts = np.concatenate([[0], np.cumsum([len(word) for word in whole], dtype=np.int64)]).astype(np.int64)
    slots = np.zeros(2 << (2 * len(whole)).bit_length() if whole else 0, dtype=np.int64)
    if whole:
        fill_whole(slots, starts, pool)
    return slots, starts, pool, np.array(list(whole.values()), dtype=np.int32)
