"""A document on its way through the filters: its text, and what several filters need to know of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

_WORD = re.compile(r"\w+|[^\w\s]+")


@dataclass(frozen=True)
class Drop:
    """The document goes, for `reason`."""

    reason: str


class Draft:
    """Normalised text; what is computed of it is computed once, however many filters ask.

    A filter that changes the text returns a new draft.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def lines(self) -> list[str]:
        """The text at its newlines."""
        return self.text.split("\n")

    @cached_property
    def words(self) -> list[str]:
        """Runs of word characters, and runs of what is neither that nor white space."""
        return _WORD.findall(self.text)
