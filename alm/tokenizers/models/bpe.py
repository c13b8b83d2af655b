"""Byte-level byte pair encoding (Sennrich et al. 2016, section 3.2; bytes: Radford et al. 2019, section 2.2).

Training joins the most frequent adjacent pair of tokens, again and again; of equally frequent pairs the
one with the smallest ids. That is the rule of the `tokenizers` library, and the merges are the same.

Inside this module a token is one character whose code point is its id, a word is a string of them, and a
pair is a string of two. So joining a pair in a word is `str.replace`, which reads from the left, leaves out
overlaps and is linear in the word; and pairs compare as their ids do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from operator import add
from typing import Literal

from pydantic import Field

from alm.config.base import Config as BaseConfig
from alm.errors import ConfigError
from alm.events import Listener, Progressed, ignore
from alm.tokenizers import alphabet
from alm.tokenizers.special import SPECIALS

LARGEST_VOCAB_SIZE = sys.maxunicode + 1

_MERGES_PER_EVENT = 250
_LONG_WORD = 100


class Config(BaseConfig):
    """Byte-level BPE: any text can be encoded, and comes back exactly."""

    kind: Literal["bpe"] = "bpe"
    pattern: Literal["qwen2"] = Field("qwen2", description="How text is split into words before training and encoding.")


Merge = tuple[int, int]
"""The ids of the two tokens that a merge joins."""


def train(word_counts: Mapping[str, int], *, vocab_size: int, on_event: Listener = ignore) -> list[Merge]:
    """The merges of a vocabulary of `vocab_size` tokens, best first; fewer when no pair is left to join.

    `ConfigError` when `vocab_size` cannot hold the special tokens and the bytes, or exceeds `LARGEST_VOCAB_SIZE`.
    """
    _check_size(vocab_size)
    pairs = _Pairs(word_counts)
    tokens = base_tokens()
    ids = {token: id_ for id_, token in enumerate(tokens)}
    merges: list[Merge] = []
    total = vocab_size - len(tokens)
    while len(tokens) < vocab_size and (pair := pairs.pop_best()) is not None:
        left, right = map(ord, pair)
        joined = tokens[left] + tokens[right]
        # A token that spells an existing one is that one: only words that hold a special token can do this.
        new = ids.setdefault(joined, len(tokens))
        if new == len(tokens):
            tokens.append(joined)
        pairs.join(pair, chr(new))
        merges.append((left, right))
        if len(merges) % _MERGES_PER_EVENT == 0:
            on_event(Progressed(task="merges", done=len(merges), total=total, unit="merges"))
    on_event(Progressed(task="merges", done=len(merges), total=total, unit="merges"))
    return merges


def base_tokens() -> list[bytes]:
    """What stands before the first merge, by id: the special tokens and the 256 bytes."""
    return [special.encode() for special in SPECIALS] + [bytes([byte]) for byte in alphabet.in_id_order()]


def all_tokens(merges: Iterable[Merge]) -> list[bytes]:
    """The bytes of every token by id, as `train` numbered them; a special token has its own text."""
    tokens = base_tokens()
    known = set(tokens)
    for left, right in merges:
        joined = tokens[left] + tokens[right]
        if joined not in known:
            known.add(joined)
            tokens.append(joined)
    return tokens


def _check_size(vocab_size: int) -> None:
    smallest = alphabet.FIRST_MERGE_ID
    if not smallest <= vocab_size <= LARGEST_VOCAB_SIZE:
        raise ConfigError(
            f"a BPE vocabulary has {smallest:,} to {LARGEST_VOCAB_SIZE:,} tokens, not {vocab_size:,}",
            hint=f"use `--vocab-size 8192`, or anything from {smallest} on",
        )


class _Pairs:
    """All adjacent pairs of the words under training: how often each occurs, and where.

    `heap` holds each pair once, by a count that may be too high by now but never too low: a pair
    only gains occurrences in the step that makes the younger of its two tokens.
    """

    def __init__(self, word_counts: Mapping[str, int]) -> None:
        symbols = _Symbols(alphabet.ids())
        self.words = [symbols.of(word.encode("utf-8", "surrogatepass")) for word in word_counts]
        self.weights = list(word_counts.values())
        self.counts: dict[str, int] = {}
        self.places: dict[str, list[int]] = {}  # indices of words; a word that lost the pair may still be there
        for index, (word, weight) in enumerate(zip(self.words, self.weights, strict=True)):
            for pair in map(add, word, word[1:]):
                self.counts[pair] = self.counts.get(pair, 0) + weight
                _note(self.places, pair, index)
        self.heap = [(-count, pair) for pair, count in self.counts.items()]
        heapify(self.heap)

    def pop_best(self) -> str | None:
        """Remove and return the pair to join next, None when there is none."""
        while self.heap:
            count_then, pair = self.heap[0]
            count = self.counts[pair]
            if count == 0:
                heappop(self.heap)
                del self.counts[pair], self.places[pair]
            elif -count == count_then:
                heappop(self.heap)
                return pair
            else:
                heapreplace(self.heap, (-count, pair))
        return None

    def join(self, pair: str, new: str) -> None:
        """Put `new` where `pair` was in every word, and count what that breaks and makes."""
        born: dict[str, list[int]] = {}
        for index in self.places.pop(pair):
            before = self.words[index]
            after = before.replace(pair, new)
            if len(after) != len(before):
                self.words[index] = after
                self._recount(after, index, pair, new, born)
        del self.counts[pair]
        self.places.update(born)
        for made in born:
            heappush(self.heap, (-self.counts[made], made))

    def _recount(self, word: str, index: int, pair: str, new: str, born: dict[str, list[int]]) -> None:
        counts, weight = self.counts, self.weights[index]
        first, second = pair[0], pair[1]
        at = word.find(new)
        while at >= 0:
            if at > 0:
                left = word[at - 1]
                # Two new ones side by side: what broke between them is the seam of two joined pairs.
                counts[(second if left == new else left) + first] -= weight
                made = left + new
                counts[made] = counts.get(made, 0) + weight
                _note(born, made, index)
            right = word[at + 1 : at + 2]
            if right and right != new:  # a new one to the right sees this seam as its left
                counts[second + right] -= weight
                made = new + right
                counts[made] = counts.get(made, 0) + weight
                _note(born, made, index)
            at = word.find(new, at + 1)


def _note(places: dict[str, list[int]], pair: str, index: int) -> None:
    """Add word `index` to the places of `pair`, once however often the pair is in it."""
    indices = places.get(pair)
    if indices is None:
        places[pair] = [index]
    elif indices[-1] != index:
        indices.append(index)


class _Symbols:
    """Words as strings of one character a byte, whose code point is the id of the byte."""

    def __init__(self, byte_ids: Sequence[int]) -> None:
        self._table = dict(enumerate(byte_ids))

    def of(self, word: bytes) -> str:
        return word.decode("latin-1").translate(self._table)


class WordEncoder:
    """Encodes one word at a time by joining, of all its pairs, the one merged first in training.

    `byte_ids` is the id of each byte by its value; a merge is (left id, right id, id of what they make).
    """

    def __init__(self, byte_ids: Sequence[int], merges: Iterable[tuple[int, int, int]]) -> None:
        listed = list(merges)
        self._symbols = _Symbols(byte_ids)
        self._ranks = {chr(left) + chr(right): rank for rank, (left, right, _) in enumerate(listed)}
        self._made = [chr(made) for _, _, made in listed]
        self._never = len(listed)

    def encode(self, word: bytes) -> list[int]:
        """The ids of `word`."""
        symbols = self._symbols.of(word)
        return [*map(ord, self._join_long(symbols) if len(symbols) > _LONG_WORD else self._join(symbols))]

    def _join(self, word: str) -> str:
        """Quadratic in the word, and fastest while it is short."""
        rank_of, never = self._ranks.get, self._never
        symbols = list(word)
        ranks = [rank_of(pair, never) for pair in map(add, word, word[1:])]
        while ranks and (best := min(ranks)) < never:
            at = ranks.index(best)
            symbols[at : at + 2] = [self._made[best]]
            del ranks[at]
            if at > 0:
                ranks[at - 1] = rank_of(symbols[at - 1] + symbols[at], never)
            if at < len(ranks):
                ranks[at] = rank_of(symbols[at] + symbols[at + 1], never)
        return "".join(symbols)

    def _join_long(self, word: str) -> str:
        """A heap of the pairs by rank and place over a linked list of symbols: n log n."""
        symbols, size = list(word), len(word)
        before, after = list(range(-1, size - 1)), list(range(1, size + 1))
        rank_of = self._ranks.get
        # One integer an entry: by rank, then from the left.
        found = ((rank_of(pair), at) for at, pair in enumerate(map(add, word, word[1:])))
        heap = [rank * size + at for rank, at in found if rank is not None]
        heapify(heap)
        while heap:
            rank, at = divmod(heappop(heap), size)
            right = after[at]
            # A joined symbol leaves "" behind, which makes a pair with nothing.
            if right == size or rank_of(symbols[at] + symbols[right]) != rank:
                continue
            symbols[at], symbols[right] = self._made[rank], ""
            follower = after[at] = after[right]
            if follower < size:
                before[follower] = at
            for left, neighbour in ((before[at], at), (at, follower)):
                if left >= 0 and neighbour < size:
                    new_rank = rank_of(symbols[left] + symbols[neighbour])
                    if new_rank is not None:
                        heappush(heap, new_rank * size + left)
        return "".join(symbols)
