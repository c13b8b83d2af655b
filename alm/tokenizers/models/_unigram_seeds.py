"""The text that a Unigram model is fitted to, and the pieces that fitting starts from (Kudo 2018, section 3.2).

Words are cut into runs of characters of the alphabet. A piece never crosses the end of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alm.tokenizers.words import Words

Integers = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LONGEST_RUN = 200
"""Longer words are cut for training, so that a megabyte of one letter takes neither long nor much memory."""

MOST_CHARACTERS = 1 << 23
"""Characters of distinct words to train on, the most common words first. It bounds memory and time."""

_MOST_OF_WORD = 1 << 16
_CODE_BITS = 63
_DEEPEST_STACK = 64


@dataclass(frozen=True)
class Text:
    """Runs of character codes from 1, each followed by a 0. Run i begins at `starts[i]` and occurs `counts[i]` times.

    `left[p]` is the number of characters from position p to the end of its run. `left_out` counts the words that did
    not fit.
    """

    codes: Integers
    left: Integers
    starts: Integers
    lengths: Integers
    counts: Longs
    alphabet: str
    left_out: int

    @classmethod
    def of(cls, words: Words, alphabet: Sequence[str], *, most: int) -> Text:
        """Make the runs of the most common words, up to `most` characters in all."""
        data, sizes = _fitting(words, most)
        points = np.frombuffer(data.decode("utf-8", "surrogatepass").encode("utf-32-le", "surrogatepass"), dtype="<u4")
        table = np.zeros(0x110000, dtype=np.int32)
        table[[ord(character) for character in alphabet]] = np.arange(1, len(alphabet) + 1)
        ends = np.cumsum(sizes)
        # A 0 goes behind each word and into long ones.
        places = np.arange(len(points)) - np.repeat(ends - sizes, sizes)
        cuts = np.flatnonzero((places % LONGEST_RUN == 0) & (np.arange(len(points)) > 0))
        codes = np.concatenate([np.insert(table[points], cuts, 0), np.zeros(2, dtype=np.int32)])
        is_inside = np.concatenate([[False], codes > 0])
        starts = np.flatnonzero(is_inside[1:] & ~is_inside[:-1]).astype(np.int32)
        lengths = (np.flatnonzero(is_inside[:-1] & ~is_inside[1:]) - starts).astype(np.int32)
        word_starts = ends - sizes
        word_starts += np.searchsorted(cuts, word_starts, side="right")
        counts = words.counts[np.searchsorted(word_starts, starts, side="right") - 1]
        left = np.zeros(len(codes), dtype=np.int32)
        inside = np.flatnonzero(codes)
        left[inside] = np.repeat(starts + lengths, lengths) - inside
        return cls(codes, left, starts, lengths, counts, "".join(alphabet), len(words) - len(sizes))


def _fitting(words: Words, most: int) -> tuple[bytes, Longs]:
    """Return the first words with at most `most` characters in all, joined, and the number of characters of each."""
    # More cannot fit: a character has at most four bytes, and words are cut to `_MOST_OF_WORD` bytes.
    reached = np.cumsum(np.minimum(np.diff(words.offsets), _MOST_OF_WORD))
    candidates = int(np.searchsorted(reached, 4 * most, side="right"))
    data, offsets = _clipped(words.data, words.offsets[: candidates + 1])
    begins = np.zeros(len(data) + 1, dtype=np.int32)
    np.cumsum((data & 0xC0) != 0x80, out=begins[1:])
    characters = begins[offsets].astype(np.int64)
    kept = int(np.searchsorted(characters, most, side="right")) - 1
    return data[: offsets[kept]].tobytes(), np.diff(characters[: kept + 1])


def _clipped(data: npt.NDArray[np.uint8], offsets: Longs) -> tuple[npt.NDArray[np.uint8], Longs]:
    """Cut each word to at most `_MOST_OF_WORD` bytes, without splitting a character."""
    sizes = np.diff(offsets)
    data = data[: offsets[-1]]
    too_long = np.flatnonzero(sizes > _MOST_OF_WORD)
    if not len(too_long):
        return data, offsets
    is_kept = np.ones(len(data), dtype=np.bool_)
    for word in too_long.tolist():
        stop = int(offsets[word]) + _MOST_OF_WORD
        while data[stop] & 0xC0 == 0x80:
            stop -= 1
        is_kept[stop : offsets[word + 1]] = False
        sizes[word] = stop - offsets[word]
    return data[is_kept], np.concatenate([[0], np.cumsum(sizes)])


@dataclass
class Pieces:
    """Pieces by number, with a place of each in the text.

    Piece i is the `lengths[i]` characters at `places[i]` of the text. The first pieces are the alphabet, whose places
    have no meaning. `begins` and `matches` are described in `alm.tokenizers._kernels.unigram_train`.
    """

    text: Text
    places: Integers
    lengths: Integers
    frequencies: Floats
    begins: Longs
    matches: Integers

    @property
    def characters(self) -> int:
        """Number of pieces that are single characters. They are never dropped."""
        return len(self.text.alphabet)

    def keep(self, is_kept: npt.NDArray[np.bool_]) -> None:
        """Drop the other pieces."""
        from alm.tokenizers._kernels import unigram_train as kernels

        renamed = np.where(is_kept, np.cumsum(is_kept) - 1, -1).astype(np.int32)
        kept = kernels.keep_matches(self.begins, self.matches, renamed)
        self.matches = self.matches[:kept]
        self.places, self.lengths = self.places[is_kept], self.lengths[is_kept]
        self.frequencies = self.frequencies[is_kept]

    def spelled(self) -> list[str]:
        """Return the pieces as text."""
        codes, alphabet = self.text.codes, self.text.alphabet
        points = np.array([0, *map(ord, alphabet)], dtype="<u4")
        found = list(alphabet)
        for place, length in zip(self.places[len(found) :].tolist(), self.lengths[len(found) :].tolist(), strict=True):
            found.append(points[codes[place : place + length]].tobytes().decode("utf-32-le"))
        return found


def seed(text: Text, *, most: int, longest: int) -> Pieces:
    """Return all characters, and the `most` repeated substrings of up to `longest` characters that cover most text."""

    order = _suffixes(text, longest)
    weights = _weights(text, order)
    found = _repeats(text, order, weights, longest) if len(order) else np.zeros((0, 3), dtype=np.int32)
    frequencies = weights[found[:, 1]] - weights[found[:, 0]]
    best = np.lexsort((found[:, 2], found[:, 0], -frequencies * found[:, 2]))[:most]
    best = best[np.lexsort((found[best, 2], found[best, 0]))]
    return _with_matches(text, order, found[best], frequencies[best], weights)


def _repeats(text: Text, order: Integers, weights: Longs, longest: int) -> Integers:
    """Return the substrings that the kernel `repeats` finds."""
    from alm.tokenizers._kernels import unigram_train as kernels

    shared = np.empty(len(order), dtype=np.int8)
    kernels.shared_lengths(text.codes, order, longest, shared)
    found = np.empty((len(order) + len(text.starts), 3), dtype=np.int32)
    stack = np.zeros((_DEEPEST_STACK, 2), dtype=np.int64)
    count = kernels.repeats(order, shared, text.left, weights, _preceding(text, order), longest, found, stack)
    return found[:count]


def _suffixes(text: Text, deep: int) -> Integers:
    """Return all positions inside runs, sorted by the text up to the end of the run, to a depth of at least `deep`.

    Prefix doubling (Manber and Myers 1993): ranks by the first characters, then by twice as many at a time.
    """
    codes, left = text.codes, text.left
    inside = np.flatnonzero(codes).astype(np.int32)
    bits = max(1, len(text.alphabet).bit_length())
    reach = min(deep, _CODE_BITS // bits)
    keys = np.zeros(len(inside), dtype=np.int64)
    for ahead in range(reach):
        at = np.minimum(inside + ahead, len(codes) - 1)
        keys = (keys << bits) | np.where(left[inside] > ahead, codes[at], 0)
    order = np.argsort(keys)
    while reach < deep:
        ranks = np.zeros(len(codes), dtype=np.int32)
        ranks[inside[order]] = _ranks(keys[order])
        at = np.minimum(inside + reach, len(codes) - 1)
        keys = (ranks[inside].astype(np.int64) << 31) | np.where(left[inside] > reach, ranks[at], 0)
        order = np.argsort(keys)
        reach *= 2
    return inside[order]


def _ranks(ordered: Longs) -> Longs:
    """Return ranks from 1, the same for equal keys."""
    ranks = np.ones(len(ordered), dtype=np.int64)
    np.cumsum(ordered[1:] != ordered[:-1], out=ranks[1:])
    ranks[1:] += 1
    return ranks


def _weights(text: Text, order: Integers) -> Longs:
    """Return the summed counts of the first n suffixes of `order`, for each n from 0."""
    by_position = np.zeros(len(text.codes), dtype=np.int64)
    by_position[text.codes > 0] = np.repeat(text.counts, text.lengths)
    return np.concatenate([[0], np.cumsum(by_position[order])])


def _preceding(text: Text, order: Integers) -> Integers:
    """Count, up to each suffix, the changes of the preceding character. The start of a run is a change."""
    before = np.where(order > 0, text.codes[order - 1], 0)
    changes = before == 0
    changes[1:] |= before[1:] != before[:-1]
    return np.cumsum(changes, dtype=np.int32)


def _with_matches(text: Text, order: Integers, seeds: Integers, frequencies: Longs, weights: Longs) -> Pieces:
    from alm.tokenizers._kernels import unigram_train as kernels

    characters = len(text.alphabet)
    begins = np.zeros(len(text.codes) + 1, dtype=np.int64)
    matches = np.empty(0, dtype=np.int32)
    stack = np.zeros(_DEEPEST_STACK, dtype=np.int32)
    kernels.list_matches(order, seeds, text.codes, characters, begins, matches, stack)
    np.cumsum(begins, out=begins)
    if begins[-1]:
        matches = np.empty(int(begins[-1]), dtype=np.int32)
        kernels.list_matches(order, seeds, text.codes, characters, begins, matches, stack)
    singles = np.bincount(text.codes[order], np.diff(weights), characters + 1)[1:]
    return Pieces(
        text,
        np.concatenate([np.zeros(characters, dtype=np.int32), order[seeds[:, 0]]]),
        np.concatenate([np.ones(characters, dtype=np.int32), seeds[:, 2]]),
        np.concatenate([singles, frequencies]),
        begins,
        matches,
    )
