"""Lines of a text that comes in pieces, broken between words at the width of the terminal."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable

from rich.cells import cell_len

from alm import shown

_TAB = 8
# A word, or one character of a script that is written without blanks and takes two columns.
_PARTS = re.compile(r"[ᄀ-ᅟ⺀-힣豈-﫿＀-｠\U0001f000-\U0003ffff]|\s|[^\sᄀ-ᅟ⺀-힣豈-﫿＀-｠\U0001f000-\U0003ffff]+")


def _columns() -> int:
    return shutil.get_terminal_size().columns


class WordWrap:
    r"""Passes pieces of a text on, with a line break before each word that would not fit in its line.

    >>> wrap = WordWrap(lambda: 9)
    >>> [wrap.feed("one tw"), wrap.feed("o th"), wrap.feed("ree"), wrap.finish()]
    ['one ', 'two ', '', '\nthree']
    """

    def __init__(self, columns: Callable[[], int] = _columns) -> None:
        self._columns = columns
        self._word = ""
        self._column = 0

    def feed(self, piece: str) -> str:
        """Return what can be written: all complete words."""
        out = ""
        for part in _PARTS.findall(shown.text(piece)):
            if part.isspace():
                out += self.finish() + self._blank(part)
            elif cell_len(part) == 2 * len(part) == 2:
                out += self.finish() + self._placed(part)
            else:
                self._word += part
                if cell_len(self._word) >= self._columns():
                    out += self.finish()
        return out

    def finish(self) -> str:
        """Return the word that was held back."""
        word, self._word = self._word, ""
        return self._placed(word) if word else ""

    def _placed(self, word: str) -> str:
        width, columns = cell_len(word), self._columns()
        breaks = self._column > 0 and self._column + width > columns
        self._column = (0 if breaks else self._column) + width
        if width >= columns:  # the terminal breaks it
            self._column %= columns
        return f"\n{word}" if breaks else word

    def _blank(self, blank: str) -> str:
        width = _TAB - self._column % _TAB if blank == "\t" else 1
        if blank == "\n" or self._column + width > self._columns():
            self._column = 0
            return "\n"
        self._column += width
        return blank
