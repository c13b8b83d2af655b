"""Kinds of filter, which keep, change or drop the normalised documents of a source. Each module has

- `Config`, the keys of the filter in a corpus file (thresholds have the published values as defaults),
- `build(config)`, a callable `Candidate -> Candidate | Drop`: the same candidate if nothing changes, a new
  one if the text changes, a `Drop` with the reason if the document is dropped,
- `inputs(config)`, only if the filter reads files: their paths, so that a change of these files is noticed.

A filter that applies rules also has `broken_rules(candidate)`, a generator of the reasons of all rules that the
document breaks, in the order of the paper. It computes them one by one, because the filter stops at the first.

Reasons are snake_case, unique among all filters, and begin with the kind: `gopher_quality_too_few_words`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

# As in most word splitters, the part after an apostrophe is a separate word, and a number keeps its commas.
_WORD = re.compile(r"(?<=\w)['’]\w+|\w+(?:[.,]\d+)*|\.{3}|[^\w\s]")
_WORD_CHARACTER = re.compile(r"\w")


@dataclass(frozen=True)
class Drop:
    """A filter's decision to drop a document: the `reason`, and optional `detail`."""

    reason: str
    detail: str = ""


class Candidate:
    """Normalised text with cached properties, so that each is computed once for all filters.

    A filter that changes the text returns a new candidate.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.language: str | None = None  # set by the filter `language`

    @cached_property
    def lines(self) -> list[str]:
        """The text split at newlines."""
        return self.text.split("\n")

    @cached_property
    def words(self) -> list[str]:
        """Words, and punctuation marks as words of their own."""
        return _WORD.findall(self.text)

    @cached_property
    def word_lengths(self) -> NDArray[np.int64]:
        """The number of characters of each word."""
        return np.fromiter(map(len, self.words), dtype=np.int64, count=len(self.words))

    @cached_property
    def vocabulary(self) -> set[str]:
        """The distinct words."""
        return set(self.words)

    @cached_property
    def is_symbol(self) -> NDArray[np.bool_]:
        """A mask of the words that consist of punctuation only."""
        # Each distinct word is classified once: most words of a text are repetitions.
        kinds = {word: not (word[-1].isalnum() or _WORD_CHARACTER.match(word)) for word in self.vocabulary}
        return np.fromiter(map(kinds.__getitem__, self.words), dtype=np.bool_, count=len(self.words))

    @cached_property
    def has_letter(self) -> NDArray[np.bool_]:
        """A mask of the words that contain a letter."""
        kinds = {word: word.isalpha() or any(map(str.isalpha, word)) for word in self.vocabulary}
        return np.fromiter(map(kinds.__getitem__, self.words), dtype=np.bool_, count=len(self.words))


def first_broken(broken_rules: Callable[[Candidate], Iterator[str]]) -> Callable[[Candidate], Candidate | Drop]:
    """Make a filter that drops a document for the first rule that it breaks."""

    def judge(candidate: Candidate) -> Candidate | Drop:
        reason = next(broken_rules(candidate), None)
        return candidate if reason is None else Drop(reason)

    return judge
