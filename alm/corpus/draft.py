"""Documents on their way through the filters: the text, and the values that several filters use."""

from __future__ import annotations

import re
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


class Draft:
    """Normalised text with cached properties, so that each is computed once for all filters.

    A filter that changes the text returns a new draft.
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
