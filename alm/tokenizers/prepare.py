"""Prepares a text before it is split into words, as the `tokenizers` library does.

Some files list added tokens that are found in text, or ask for a normalizer. SentencePiece writes a blank as "▁" and
puts one before a text; here it stays a blank, and a "▁" of the text becomes one too.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from alm.tokenizers import _unicode

BLANK_SIGN = "▁"

_NEW_MARKS = """
5c8+2 233 99+9 2a+a 12a 23d fe+2 17d 85a 3a9+32 305+5 8a31 5d9c 8 7 9 73f+4 41+5 13d+2 1e+5 20+c 1+3 46+b 31+4 ea
2ca 46+4 5 2 1+2 26 2 6 2 1+3 4+3 8d 3da+2 f5 4 2 4+2 4 9c 53 12 51 2a8 1+2 51 1a9+2 41db+c 5 c33 3+4 285+2 6135+2
127+3 8+2 2 20+2 e0d a0+7 177 3d+4 1fc+4 fe+2 f3 2 7+2 5
"""
"""Characters of Unicode 10 to 18 that matter to NFC, in the notation of `_unicode.ranges`: combining marks, and the
parts and results of compositions. The library's tables are of Unicode 9, in which these are ordinary characters."""


def nfc(text: str) -> str:
    """Return `text` in normalization form C of Unicode 9, whatever the version of Python."""
    # Newer tables only compose and reorder more, so what they leave alone, those of Unicode 9 leave alone too.
    if unicodedata.is_normalized("NFC", text):
        return text
    parts = _new_marks().split(text)
    parts[::2] = [unicodedata.normalize("NFC", part) for part in parts[::2]]
    return "".join(parts)


@functools.cache
def _new_marks() -> re.Pattern[str]:
    return re.compile(f"([{_class_of(_NEW_MARKS)}]+)")


def _class_of(table: str) -> str:
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in _unicode.ranges(table))


@dataclass(frozen=True)
class Normalizer:
    """Changes a text before it is split. `prefix` says before which parts a blank is put, if they are SentencePiece's.

    With `sentencepiece`, that is part of the normalizer in the file; with `metaspace`, it is a step after it, which
    puts no blank before another.
    """

    kind: Literal["none", "nfc", "sentencepiece", "metaspace"] = "none"
    prefix: Literal["never", "always", "first"] = "never"

    @property
    def has_blanks(self) -> bool:
        """Whether the file writes blanks as "▁"."""
        return self.kind in ("sentencepiece", "metaspace")

    def normalize(self, text: str) -> str:
        """Return `text`, a part between added tokens, normalized."""
        if self.kind == "nfc":
            return nfc(text)
        if self.kind == "sentencepiece":
            text = text.replace(BLANK_SIGN, " ")
            return f" {text}" if text and self.prefix == "always" else text
        return text

    def finish(self, text: str, *, is_first: bool) -> str:
        """Return `text`, a part between added tokens, as it is split into words."""
        if self.kind != "metaspace":
            return text
        text = text.replace(BLANK_SIGN, " ")
        wanted = self.prefix == "always" or (self.prefix == "first" and is_first)
        return f" {text}" if wanted and not text.startswith(" ") else text


@dataclass(frozen=True)
class AddedToken:
    """A token that the library looks for in text: before (`normalized` false) or after it is normalized.

    `lstrip` and `rstrip` add the white space around it to the token. Of a `special` one, only the place is taken: the
    library is set to read it as text.
    """

    id: int
    content: str
    special: bool
    normalized: bool = False
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True)
class Preparation:
    """The normalizer and the added tokens of a file. It turns a text into parts to split, and ids of added tokens."""

    normalizer: Normalizer = Normalizer()
    added: tuple[AddedToken, ...] = ()
    _finders: tuple[_Finder, _Finder] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        before = {token.content: token for token in self.added if not token.normalized}
        behind = {self.text_of(token): token for token in self.added if token.normalized}
        object.__setattr__(self, "_finders", (_Finder(before), _Finder(behind)))

    def text_of(self, token: AddedToken) -> str:
        """Return the text that is looked for, which is also what the token decodes to."""
        return self.normalizer.normalize(token.content) if token.normalized else token.content

    @property
    def found(self) -> dict[str, int]:
        """Added tokens that text encodes to, and their ids."""
        return {token.content: token.id for token in self.added if not token.special}

    @functools.cached_property
    def changes_nothing(self) -> bool:
        """Whether every text is one part, and unchanged."""
        return self.normalizer.kind == "none" and not self.found

    def parts(self, text: str) -> list[str | int]:
        """Return the parts of `text`, each normalized, and the ids of the added tokens between them."""
        if self.changes_nothing:
            return [text]
        before, behind = self._finders
        found: list[str | int] = []
        for piece in before.pieces(text):
            inner = [piece] if isinstance(piece, int) else behind.pieces(self.normalizer.normalize(piece))
            for part in inner:
                is_id = isinstance(part, int)
                found.append(part if is_id else self.normalizer.finish(str(part), is_first=not found))
        return found


class _Finder:
    """Finds tokens in text: the leftmost, of those the longest, then from its end on."""

    def __init__(self, tokens: Mapping[str, AddedToken]) -> None:
        self._tokens = tokens if any(not token.special for token in tokens.values()) else {}
        lengths: dict[str, set[int]] = defaultdict(set)
        for content in self._tokens:
            lengths[content[0]].add(len(content))
        self._lengths = {first: sorted(sizes, reverse=True) for first, sizes in lengths.items()}
        self._firsts = f"[{''.join(map(re.escape, lengths))}]" if lengths else ""

    def pieces(self, text: str) -> Sequence[str | int]:
        """Return the text between the tokens, without empty pieces, and the ids of those that are not special."""
        if not self._tokens:
            return [text] if text else []
        pieces: list[str | int] = []
        done = 0
        for start, end, token in self._matches(text):
            if token.special:
                continue
            while token.lstrip and start > done and text[start - 1] in _spaces():
                start -= 1
            while token.rstrip and end < len(text) and text[end] in _spaces():
                end += 1
            if start > done:
                pieces.append(text[done:start])
            pieces.append(token.id)
            done = end
        if done < len(text):
            pieces.append(text[done:])
        return pieces

    def _matches(self, text: str) -> Iterator[tuple[int, int, AddedToken]]:
        end = 0
        for first in re.finditer(self._firsts, text):
            start = first.start()
            if start < end:
                continue
            for length in self._lengths[first[0]]:
                token = self._tokens.get(text[start : start + length])
                if token is not None:
                    end = start + length
                    yield start, end, token
                    break


@functools.cache
def _spaces() -> frozenset[str]:
    """Return the characters that are white space to the library."""
    return frozenset(chr(point) for first, last in _unicode.ranges(_unicode.SPACES) for point in range(first, last + 1))
