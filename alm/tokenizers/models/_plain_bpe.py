"""Byte pair encoding in plain Python: for small texts, and as the reference in tests of the compiled code.

Training repeatedly joins the most frequent adjacent pair of tokens (Sennrich et al. 2016, section 3.2, Algorithm 1).
Ties go to the pair with the smallest ids, as in the `tokenizers` library, so the merges are the same.

Inside this module, a token is one character whose code point is its id, a word is a string of them, and a pair is a
string of two. Joining a pair in a word is then `str.replace`, which reads from the left, skips overlaps and takes
linear time, and pairs compare as their ids do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from operator import add
from types import MappingProxyType

LARGEST_VOCAB_SIZE = sys.maxunicode + 1

_MERGES_PER_REPORT = 250
_LONG_WORD = 100

Merge = tuple[int, int]
"""Ids of the two tokens that a merge joins."""


def merge(
    words: Iterable[tuple[str, int]],
    tokens: Sequence[bytes],
    *,
    vocab_size: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Merge]:
    """Learn the merges of a vocabulary of `vocab_size` tokens, best first; fewer if no pair is left to join.

    `words` are strings of symbols with their counts. `tokens` are those before the first merge, by id. `report` is
    called regularly with the merges done and the merges wanted.
    """
    pairs = _Pairs(words)
    tokens = list(tokens)
    ids = {token: id_ for id_, token in enumerate(tokens)}
    merges: list[Merge] = []
    total = max(0, vocab_size - len(tokens))
    while len(tokens) < vocab_size and (pair := pairs.pop_best()) is not None:
        left, right = map(ord, pair)
        joined = tokens[left] + tokens[right]
        # A merge that spells an existing token reuses its id. Only words that hold a special token's text can do this.
        new = ids.setdefault(joined, len(tokens))
        if new == len(tokens):
            tokens.append(joined)
        pairs.join(pair, chr(new))
        merges.append((left, right))
        if len(merges) % _MERGES_PER_REPORT == 0:
            report(len(merges), total)
    report(len(merges), total)
    return merges


class _Pairs:
    """All adjacent pairs of the words in training, with their counts and places.

    `heap` holds each pair once, with a count that may be too high by now but never too low: a pair gains occurrences
    only in the step that makes the younger of its two tokens. So a stale count is corrected when the pair comes up.
    """

    def __init__(self, words: Iterable[tuple[str, int]]) -> None:
        self.words: list[str] = []
        self.weights: list[int] = []
        for symbols, count in words:
            self.words.append(symbols)
            self.weights.append(count)
        self.counts: dict[str, int] = {}
        self.places: dict[str, list[int]] = {}  # indices of words, which may include words that lost the pair
        for index, (word, weight) in enumerate(zip(self.words, self.weights, strict=True)):
            for pair in map(add, word, word[1:]):
                self.counts[pair] = self.counts.get(pair, 0) + weight
                _note(self.places, pair, index)
        self.heap = [(-count, pair) for pair, count in self.counts.items()]
        heapify(self.heap)

    def pop_best(self) -> str | None:
        """Remove and return the pair to join next; None if none is left."""
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
        """Replace `pair` with `new` in every word, and update the counts of the pairs around it."""
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
                # If the left neighbour is new too, the broken pair is the seam between two joined pairs.
                counts[(second if left == new else left) + first] -= weight
                made = left + new
                counts[made] = counts.get(made, 0) + weight
                _note(born, made, index)
            right = word[at + 1 : at + 2]
            if right and right != new:  # a new token to the right counts this seam as its left
                counts[second + right] -= weight
                made = new + right
                counts[made] = counts.get(made, 0) + weight
                _note(born, made, index)
            at = word.find(new, at + 1)


def _note(places: dict[str, list[int]], pair: str, index: int) -> None:
    """Add word `index` to the places of `pair`, once even if the word holds the pair several times."""
    indices = places.get(pair)
    if indices is None:
        places[pair] = [index]
    elif indices[-1] != index:
        indices.append(index)


class WordEncoder:
    """Encodes one word at a time: joins, of all its pairs, the one merged first in training.

    `symbols_of` returns the initial symbols of a word as a string. A merge is (left id, right id, id of the result).
    `whole` are words with an id of their own, which are not merged.
    """

    def __init__(
        self,
        symbols_of: Callable[[bytes], str],
        merges: Iterable[tuple[int, int, int]],
        whole: Mapping[bytes, int] = MappingProxyType({}),
    ) -> None:
        self._whole = whole
        listed = list(merges)
        self._symbols_of = symbols_of
        pairs = [chr(left) + chr(right) for left, right, _ in listed]
        self._ranks = {pair: rank for rank, pair in reversed([*enumerate(pairs)])}  # of duplicate pairs, the first wins
        self._made = [chr(made) for _, _, made in listed]
        self._never = len(listed)

    def encode(self, word: bytes) -> list[int]:
        """Return the ids of `word`."""
        whole = self._whole.get(word)
        if whole is not None:
            return [whole]
        symbols = self._symbols_of(word)
        return [*map(ord, self._join_long(symbols) if len(symbols) > _LONG_WORD else self._join(symbols))]

    def _join(self, word: str) -> str:
        """Join by trying all pairs: quadratic in the word, but fastest while it is short."""
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
        """Join with a heap of pairs by rank and place over a linked list of symbols: n log n."""
        symbols, size = list(word), len(word)
        before, after = list(range(-1, size - 1)), list(range(1, size + 1))
        rank_of = self._ranks.get
        # One integer per entry, which sorts by rank, then from the left.
        found = ((rank_of(pair), at) for at, pair in enumerate(map(add, word, word[1:])))
        heap = [rank * size + at for rank, at in found if rank is not None]
        heapify(heap)
        while heap:
            rank, at = divmod(heappop(heap), size)
            right = after[at]
            # A joined symbol leaves "" behind, which is in no ranked pair.
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
