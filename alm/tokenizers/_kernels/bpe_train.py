"""Learns byte pair encoding in compiled code (Sennrich et al. 2016, section 3.2, Algorithm 1).

All words lie in one array of slots, one slot per character of the alphabet, with a wall before and after each word.
A symbol sits in the slot where it begins, and its length gives the slot of the next one. So joining two symbols costs
the same in a word of a million characters as in one of five.

A pair is followed (its count kept, its places listed) only while it is frequent: at least `threshold`. A pair gains
occurrences only in the step that makes the younger of its two symbols, and then only loses them. So a pair that starts
below the threshold cannot win before all followed pairs have fallen below it too. Then all pairs are counted again,
with a lower threshold. This keeps the tables small: most pairs of a large text never come near a merge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from alm.errors import InputError
from alm.tokenizers._kernels.compiling import inlined, kernel
from alm.tokenizers._kernels.text import ODD, mixed
from alm.tokenizers.words import Words

_WALL, _ABSORBED = -1, -2

_FREE = np.uint64(0xFFFFFFFFFFFFFFFF)
_MOST_SLOTS = np.iinfo(np.int32).max  # places are stored as int32, which halves the lists
_MERGES_PER_CALL = 500  # then the kernel returns, so that progress is reported
_LOWERED_BY = 16  # divisor of the threshold when pairs are counted again
_FIRST_DIVISOR = 256

_EXHAUSTED, _NO_ROOM, _PAUSED, _NAME_NEEDED, _RECOUNT = range(1, 6)

# Places in the state.
_TOKENS, _MERGES, _HEAP, _PAIRS, _PLACES, _THRESHOLD, _NAME = range(7)


class Slots(NamedTuple):
    """The words in slots, by slot."""

    symbols: npt.NDArray[np.int32]
    before: npt.NDArray[np.int32]  # slot of the previous symbol
    word_at: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]  # by word
    lengths: npt.NDArray[np.int32]  # by symbol, in slots


class Pairs(NamedTuple):
    """The followed pairs: a table from pairs to their numbers, and by number their count and list of places."""

    table: npt.NDArray[np.uint64]
    numbers: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    places: npt.NDArray[np.int32]


class Heap(NamedTuple):
    """Pairs by the count they had when they entered, the highest first."""

    counts: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.uint64]
    numbers: npt.NDArray[np.int32]


class Around(NamedTuple):
    """Changes that one merge makes to the pairs around it, by neighbour: see `join`."""

    near: npt.NDArray[np.int64]  # (5, symbols)
    touched: npt.NDArray[np.int32]  # (2, symbols)
    fill: npt.NDArray[np.int64]  # (2, symbols), the next free index of each new list, -1 for none


class Names(NamedTuple):
    """Tokens that exist before training, and are longer than a character."""

    is_length: npt.NDArray[np.bool_]  # by length
    begins: npt.NDArray[np.bool_]  # by symbol: whether one begins with it


@inlined
def pair_of(left, right):
    """Return two symbols as one integer, which sorts as they do."""
    return (np.uint64(left) << np.uint64(32)) | np.uint64(right)


@inlined
def find_pair(table, pair):
    """Return the slot of `pair` in a table of pairs, or the free slot where it belongs."""
    last = table.size - 1
    slot = np.int64(mixed(pair * ODD)) & last
    while table[slot] != pair and table[slot] != _FREE:
        slot = (slot + 1) & last
    return slot


@kernel
def lay_out(data, offsets, symbol_of, symbols, before, word_at):
    """Put the words into slots. Return the number of slots used.

    `symbol_of` is by byte if it has 256 entries, and by code point if more. A character without a symbol is a wall.
    """
    by_byte = symbol_of.size == 256
    slot = np.int64(0)
    for word in range(offsets.size - 1):
        symbols[slot] = _WALL
        slot += 1
        at, stop = offsets[word], offsets[word + 1]
        while at < stop:
            point = np.int64(data[at])
            at += 1
            if not by_byte and point >= 0xC0:
                more = 1 if point < 0xE0 else 2 if point < 0xF0 else 3
                point &= 0x3F >> more
                for _ in range(more):
                    point = (point << 6) | (np.int64(data[at]) & 0x3F)
                    at += 1
            symbols[slot] = symbol_of[point]
            before[slot] = slot - 1
            word_at[slot] = word
            slot += 1
    symbols[slot] = _WALL
    return slot + 1


@kernel
def count_pairs(slots, table, totals, occurrences, state):
    """Count all pairs from slot `state[0]` on, until the table is half full. Update `state`: next slot, pairs found."""
    symbols, word_at, counts, lengths = slots.symbols, slots.word_at, slots.counts, slots.lengths
    slot, found, most = state[0], state[1], table.size >> 1
    while slot < symbols.size and found < most:
        left = symbols[slot]
        if left < 0:
            slot += 1
            continue
        following = slot + lengths[left]
        right = symbols[following]
        if right >= 0:
            pair = pair_of(left, right)
            place = find_pair(table, pair)
            if table[place] == _FREE:
                table[place] = pair
                found += 1
            totals[place] += counts[word_at[slot]]
            occurrences[place] += 1
        slot = following
    state[0], state[1] = slot, found


@kernel
def fill_pairs(pairs, table, numbers):
    """Enter each of `pairs` with its index into an empty table."""
    for i in range(pairs.size):
        place = find_pair(table, pairs[i])
        table[place] = pairs[i]
        numbers[place] = i


@kernel
def move_totals(table, totals, occurrences, larger, larger_totals, larger_occurrences):
    """Move all counts into a larger table."""
    for i in range(table.size):
        if table[i] != _FREE:
            place = find_pair(larger, table[i])
            larger[place] = table[i]
            larger_totals[place] = totals[i]
            larger_occurrences[place] = occurrences[i]


@kernel
def list_places(slots, pairs, fill):
    """List the places of each followed pair, in order. `fill` is the next free index of each list."""
    symbols, lengths = slots.symbols, slots.lengths
    table, numbers, places = pairs.table, pairs.numbers, pairs.places
    slot = np.int64(0)
    while slot < symbols.size:
        left = symbols[slot]
        if left < 0:
            slot += 1
            continue
        following = slot + lengths[left]
        right = symbols[following]
        if right >= 0:
            found = find_pair(table, pair_of(left, right))
            if table[found] != _FREE:
                number = numbers[found]
                places[fill[number]] = slot
                fill[number] += 1
        slot = following


@kernel
def push(heap, size, count, pair, number):
    """Add to a heap with four children per node. The highest count comes first, then the smallest pair."""
    counts, pairs, numbers = heap.counts, heap.pairs, heap.numbers
    at = size
    while at > 0:
        parent = (at - 1) >> 2
        if count < counts[parent] or (count == counts[parent] and pair > pairs[parent]):
            break
        counts[at], pairs[at], numbers[at] = counts[parent], pairs[parent], numbers[parent]
        at = parent
    counts[at], pairs[at], numbers[at] = count, pair, number


@kernel
def replace_top(heap, size, count, pair, number):
    """Replace the first entry of the heap."""
    counts, pairs, numbers = heap.counts, heap.pairs, heap.numbers
    at = np.int64(0)
    while True:
        best = 4 * at + 1
        if best >= size:
            break
        for child in range(best + 1, min(best + 4, size)):
            better = counts[child] > counts[best]
            if better or (counts[child] == counts[best] and pairs[child] < pairs[best]):
                best = child
        if count > counts[best] or (count == counts[best] and pair < pairs[best]):
            break
        counts[at], pairs[at], numbers[at] = counts[best], pairs[best], numbers[best]
        at = best
    counts[at], pairs[at], numbers[at] = count, pair, number


@kernel
def drop_top(heap, state):
    """Remove the first entry of the heap."""
    state[_HEAP] -= 1
    end = state[_HEAP]
    if end > 0:
        replace_top(heap, end, heap.counts[end], heap.pairs[end], heap.numbers[end])


@kernel
def refresh_top(heap, pair_counts, state):
    """Bring the best pair that is still frequent, by its current count, to the top of the heap."""
    while state[_HEAP] > 0:
        number = heap.numbers[0]
        count = pair_counts[number]
        if count < state[_THRESHOLD]:
            drop_top(heap, state)
        elif count == heap.counts[0]:
            return
        else:
            replace_top(heap, state[_HEAP], count, heap.pairs[0], number)


@kernel
def join(slots, places, start, stop, left, right, new, near, touched):
    """Replace `left`, `right` with `new` everywhere, from the left, and record the changes to the pairs around it.

    Valid places move to the front of the list. Return their number and the numbers of distinct neighbours: `touched[0]`
    holds those before, `touched[1]` those after. By neighbour, `near` has these rows: 0 occurrences before, 1 their
    count; 2 occurrences after, 3 the count that pairs with `right` lose, 4 the count that pairs with `new` gain.
    """
    symbols, before, lengths = slots.symbols, slots.before, slots.lengths
    word_at, counts = slots.word_at, slots.counts
    left_length, right_length = np.int64(lengths[left]), np.int64(lengths[right])
    kept, many_before, many_behind = start, 0, 0
    for i in range(start, stop):
        slot = np.int64(places[i])
        middle = slot + left_length
        if symbols[slot] != left or symbols[middle] != right:
            continue
        places[kept] = slot
        kept += 1
        following = middle + right_length
        count = counts[word_at[slot]]
        x, y = symbols[before[slot]], symbols[following]
        symbols[slot] = new
        symbols[middle] = _ABSORBED
        if x == new:
            # The previous symbol was made in this step too. It recorded a `left` after it, which is now `new`.
            near[4, left] -= count
            if near[2, new] == 0:
                touched[1, many_behind] = new
                many_behind += 1
            near[2, new] += 1
            near[4, new] += count
        elif x >= 0:
            if near[0, x] == 0:
                touched[0, many_before] = x
                many_before += 1
            near[0, x] += 1
            near[1, x] += count
        if y >= 0:
            before[following] = slot
            if near[2, y] == 0:
                touched[1, many_behind] = y
                many_behind += 1
            near[2, y] += 1
            near[3, y] += count
            near[4, y] += count
    return kept - start, many_before, many_behind


@kernel
def merge_pairs(slots, pairs, heap, around, names, merges, state, most_tokens):
    """Join the best pair repeatedly. Return the reason to stop, 0 if there are `most_tokens` symbols."""
    pause = state[_MERGES] + _MERGES_PER_CALL
    while state[_TOKENS] < most_tokens:
        refresh_top(heap, pairs.counts, state)
        if state[_HEAP] == 0:
            return _EXHAUSTED
        if state[_MERGES] == pause:
            return _PAUSED
        number = heap.numbers[0]
        start, size = pairs.starts[number], pairs.sizes[number]
        most_born = 2 * min(size, state[_TOKENS] + 1)
        if state[_PLACES] + 2 * size > pairs.places.size or state[_PAIRS] + most_born > pairs.counts.size:
            return _NO_ROOM
        left, right = np.int32(heap.pairs[0] >> np.uint64(32)), np.int32(heap.pairs[0] & np.uint64(0xFFFFFFFF))
        merges[state[_MERGES], 0], merges[state[_MERGES], 1] = left, right
        length = np.int64(slots.lengths[left]) + slots.lengths[right]
        if state[_NAME] < 0 and names.begins[left] and length < names.is_length.size and names.is_length[length]:
            return _NAME_NEEDED
        drop_top(heap, state)
        new = np.int32(state[_TOKENS] if state[_NAME] < 0 else state[_NAME])
        is_known = new < state[_TOKENS]
        slots.lengths[new], names.begins[new] = length, names.begins[left]
        state[_NAME] = -1
        state[_MERGES] += 1
        state[_TOKENS] += 0 if is_known else 1
        kept, many_before, many_behind = join(
            slots, pairs.places, start, start + size, left, right, new, around.near, around.touched
        )  # fmt: skip
        if is_known:
            return _RECOUNT  # it may make pairs that exist already, whose counts would grow
        first = state[_PAIRS]
        for side, many in ((0, many_before), (1, many_behind)):
            count_around(side, many, left, right, new, around, pairs, heap, state)
        if state[_PAIRS] > first:
            follow(slots, pairs.places, start, start + kept, new, around.fill)
        for side, many in ((0, many_before), (1, many_behind)):
            close_lists(side, many, new, around, pairs)
    return 0


@kernel
def count_around(side, many, left, right, new, around, pairs, heap, state):
    """Lower the counts of the replaced pairs, and start a list for each new pair that is frequent.

    Clears `near`. Leaves in `fill`, by neighbour, the start of its list, or -1 if it has none.
    """
    near, touched, fill = around.near, around.touched, around.fill
    table, numbers, pair_counts = pairs.table, pairs.numbers, pairs.counts
    for i in range(many):
        x = touched[side, i]
        lost = near[1 if side == 0 else 3, x]
        gained = near[1 if side == 0 else 4, x]
        found = find_pair(table, pair_of(x, left) if side == 0 else pair_of(right, x))
        if table[found] != _FREE:
            pair_counts[numbers[found]] -= lost
        fill[side, x] = -1
        if gained >= state[_THRESHOLD]:
            born = state[_PAIRS]
            pair = pair_of(x, new) if side == 0 else pair_of(new, x)
            found = find_pair(table, pair)
            table[found], numbers[found] = pair, born
            pair_counts[born] = gained
            pairs.starts[born] = state[_PLACES]
            fill[side, x] = state[_PLACES]
            push(heap, state[_HEAP], gained, pair, born)
            state[_PAIRS] += 1
            state[_PLACES] += near[2 * side, x]
            state[_HEAP] += 1
        for row in range(2 * side, 2 + 3 * side):
            near[row, x] = 0


@kernel
def close_lists(side, many, new, around, pairs):
    """Record the length of each new list, and clear `fill`."""
    for i in range(many):
        x = around.touched[side, i]
        if around.fill[side, x] >= 0:
            born = pairs.numbers[find_pair(pairs.table, pair_of(x, new) if side == 0 else pair_of(new, x))]
            pairs.sizes[born] = around.fill[side, x] - pairs.starts[born]
            around.fill[side, x] = -1


@kernel
def follow(slots, places, start, stop, new, fill):
    """List the places of the pairs of `new` with its neighbours that have a list in `fill`."""
    symbols, before = slots.symbols, slots.before
    length = np.int64(slots.lengths[new])
    for i in range(start, stop):
        slot = places[i]
        x, y = symbols[before[slot]], symbols[slot + length]
        if x >= 0 and x != new and fill[0, x] >= 0:
            places[fill[0, x]] = before[slot]
            fill[0, x] += 1
        if y >= 0 and fill[1, y] >= 0:
            places[fill[1, y]] = slot
            fill[1, y] += 1


def merge(
    words: Words,
    symbol_of: npt.NDArray[np.int32],
    tokens: Sequence[bytes],
    *,
    vocab_size: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[int, int]]:
    """Learn merges: the ids of the two symbols of each, best first.

    `tokens` are the bytes of the base tokens, by id. `symbol_of` is passed to `lay_out`. `report` is called regularly
    with the merges done and the merges wanted.
    """
    training = _Training(words, symbol_of, tokens, vocab_size)
    total = max(0, vocab_size - len(tokens))
    while not training.is_finished:
        training.go_on()
        report(training.done, total)
    return [(left, right) for left, right in training.merges[: training.done].tolist()]


class _Training:
    """Arrays that the kernels work on."""

    def __init__(
        self, words: Words, symbol_of: npt.NDArray[np.int32], tokens: Sequence[bytes], vocab_size: int
    ) -> None:
        self._vocab_size = vocab_size
        self._tokens = list(tokens)
        self._ids = {token: id_ for id_, token in enumerate(tokens)}
        self._named = 0
        self.merges = np.zeros((vocab_size, 2), dtype=np.int32)
        rows = max(vocab_size, len(tokens)) + 1
        self._slots = _laid_out(words, symbol_of, rows)
        self._names = _names(tokens, rows)
        self._around = Around(
            near=np.zeros((5, rows), dtype=np.int64),
            touched=np.zeros((2, rows), dtype=np.int32),
            fill=np.full((2, rows), -1, dtype=np.int64),
        )
        self._state = np.zeros(7, dtype=np.int64)
        self._state[[_TOKENS, _NAME]] = len(tokens), -1
        self._pair_room, self._place_room = 1 << 12, 1 << 16
        self._recount(lower=True)

    @property
    def done(self) -> int:
        """Number of merges so far."""
        return int(self._state[_MERGES])

    @property
    def is_finished(self) -> bool:
        """Whether the vocabulary is full or no pair is left."""
        is_exhausted = self._state[_HEAP] == 0 and self._state[_THRESHOLD] <= 1
        return bool(self._state[_TOKENS] >= self._vocab_size or is_exhausted)

    def go_on(self) -> None:
        """Merge until the kernel returns, then do what it needs: a name, more room or another count."""
        outcome = merge_pairs(
            self._slots, self._pairs, self._heap, self._around, self._names, self.merges, self._state, self._vocab_size
        )  # fmt: skip
        if outcome == _NAME_NEEDED:
            self._name()
        elif outcome == _RECOUNT:
            self._around.near[:] = 0
            self._recount(lower=False)
        elif outcome == _NO_ROOM:
            self._recount(lower=False, grow=True)
        elif outcome == _EXHAUSTED and self._state[_THRESHOLD] > 1:
            self._recount(lower=True)

    def _name(self) -> None:
        """Give the next merge the id of an existing token that it spells. Only a special token's text can be one."""
        for left, right in self.merges[self._named : self.done].tolist():
            self._named += 1
            self._enter(self._tokens[left] + self._tokens[right])
        left, right = self.merges[self.done].tolist()
        self._state[_NAME] = self._ids.get(self._tokens[left] + self._tokens[right], len(self._tokens))

    def _enter(self, token: bytes) -> None:
        if token not in self._ids:
            self._ids[token] = len(self._tokens)
            self._tokens.append(token)

    def _recount(self, *, lower: bool, grow: bool = False) -> None:
        """Count all pairs again and follow the frequent ones, with room for as many more."""
        pairs, totals, occurrences = self._count()
        if lower:
            highest = int(totals.max(initial=0))
            before = int(self._state[_THRESHOLD]) or (highest // _FIRST_DIVISOR + 1) * _LOWERED_BY
            self._state[_THRESHOLD] = max(1, min(before, highest + 1) // _LOWERED_BY)
        followed = np.flatnonzero(totals >= self._state[_THRESHOLD])
        pairs, totals, occurrences = pairs[followed], totals[followed], occurrences[followed]
        order = np.lexsort((pairs, -totals))  # a sorted array is a valid heap
        self._follow(pairs[order], totals[order], occurrences[order], grow=grow)

    def _count(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        table, totals, occurrences = _pair_table(1 << 16)
        state = np.zeros(2, dtype=np.int64)
        while True:
            count_pairs(self._slots, table, totals, occurrences, state)
            if state[0] >= len(self._slots.symbols):
                break
            larger = _pair_table(4 * len(table))
            move_totals(table, totals, occurrences, *larger)
            table, totals, occurrences = larger
        filled = np.flatnonzero(table != _FREE)
        return table[filled], totals[filled], occurrences[filled]

    def _follow(
        self,
        pairs: npt.NDArray[np.uint64],
        totals: npt.NDArray[np.int64],
        occurrences: npt.NDArray[np.int64],
        *,
        grow: bool,
    ) -> None:
        used, places = len(pairs), int(occurrences.sum())
        if grow:
            self._pair_room, self._place_room = 2 * self._pair_room, 2 * self._place_room
        self._pair_room = max(self._pair_room, 2 * used, 4 * self._vocab_size)
        self._place_room = max(self._place_room, places + places // 2)
        table = np.full(_power_of_two(2 * self._pair_room), _FREE, dtype=np.uint64)
        self._pairs = Pairs(
            table=table,
            numbers=np.zeros(len(table), dtype=np.int32),
            counts=_with_room(totals, self._pair_room),
            starts=_with_room(np.cumsum(occurrences) - occurrences, self._pair_room),
            sizes=_with_room(occurrences, self._pair_room),
            places=np.zeros(self._place_room, dtype=np.int32),
        )
        fill_pairs(pairs, self._pairs.table, self._pairs.numbers)
        list_places(self._slots, self._pairs, self._pairs.starts[:used].copy())
        self._heap = Heap(
            counts=_with_room(totals, self._pair_room),
            pairs=_with_room(pairs, self._pair_room),
            numbers=_with_room(np.arange(used, dtype=np.int32), self._pair_room),
        )
        self._state[[_HEAP, _PAIRS, _PLACES]] = used, used, places


def _laid_out(words: Words, symbol_of: npt.NDArray[np.int32], rows: int) -> Slots:
    size = int(words.offsets[-1]) + len(words) + 1
    if size > _MOST_SLOTS:
        raise InputError(
            f"the distinct words of the text have {size:,} bytes, and training can take at most {_MOST_SLOTS:,}",
            hint="train on part of it: `alm tokenizer train --input data/clean/SOURCE-00000.txt`",
        )
    symbols, before, word_at = (np.zeros(size, dtype=np.int32) for _ in range(3))
    used = lay_out(words.data, words.offsets, symbol_of, symbols, before, word_at)
    return Slots(symbols[:used], before, word_at, words.counts, lengths=np.ones(rows, dtype=np.int32))


def _names(tokens: Sequence[bytes], rows: int) -> Names:
    lengths = [len(token) for token in tokens if len(token) > 1]
    names = Names(np.zeros(max(lengths, default=0) + 1, dtype=np.bool_), np.zeros(rows, dtype=np.bool_))
    names.is_length[lengths] = True
    first = {token[:1] for token in tokens if len(token) > 1}
    names.begins[[id_ for id_, token in enumerate(tokens) if token in first]] = True
    return names


def _pair_table(size: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return np.full(size, _FREE, dtype=np.uint64), np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _with_room(values: np.ndarray, size: int) -> np.ndarray:
    larger = np.zeros(size, dtype=values.dtype)
    larger[: len(values)] = values
    return larger
