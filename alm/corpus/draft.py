"""A document on its way through the filters: its text, and what several filters need to know of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

# What follows an apostrophe is a word of its own, and a number is one with its commas, as in most word splitters.
_WORD = re.compile(r"(?<=\w)['’]\w+|\w+(?:[.,]\d+)*|\.{3}|[^\w\s]")
_WORD_CHARACTER = re.compile(r"\w")


@dataclass(frozen=True)
class Drop:
    """The document goes, for `reason`; `detail` says more."""

    reason: str
    detail: str = ""


class Draft:
    """Normalised text; what is computed of it is computed once, however many filters ask.

    A filter that changes the text returns a new draft.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.language: str | None = None  # where a filter looked for it

    @cached_property
    def lines(self) -> list[str]:
        """The text at its newlines."""
        return self.text.split("\n")

    @cached_property
    def words(self) -> list[str]:
        """Runs of word characters, and runs of what is neither that nor white space."""
        return _WORD.findall(self.text)

    @cached_property
    def word_lengths(self) -> NDArray[np.int64]:
        """Characters of each word."""
        return np.fromiter(map(len, self.words), dtype=np.int64, count=len(self.words))

    @cached_property
    def vocabulary(self) -> set[str]:
        """Its different words."""
        return set(self.words)

    @cached_property
    def is_symbol(self) -> NDArray[np.bool_]:
        """Which words are punctuation: every character of such a word is."""
        kinds = {word: not (word[-1].isalnum() or _WORD_CHARACTER.match(word)) for word in self.vocabulary}
        return np.fromiter(map(kinds.__getitem__, self.words), dtype=np.bool_, count=len(self.words))

    @cached_property
    def has_letter(self) -> NDArray[np.bool_]:
        """Which words have a letter."""
        kinds = {word: word.isalpha() or any(map(str.isalpha, word)) for word in self.vocabulary}
        return np.fromiter(map(kinds.__getitem__, self.words), dtype=np.bool_, count=len(self.words))
