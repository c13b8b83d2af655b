"""Splitting text into the words that a tokenizer then works on one at a time.

A split is known by name. `PATTERNS` holds the regular expression as `tokenizer.json` carries it;
here the same expression runs on the standard library's `re`, with its classes written out from
the pinned table, so that the words are those of the `tokenizers` library, code point for code point.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain, pairwise
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from alm.tokenizers import _unicode

Pattern = Literal["qwen2", "cl100k", "gpt2"]

PATTERNS: dict[Pattern, str] = {
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "cl100k": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
}
"""The splits by name: single digits, runs of up to three, and the first of the byte-level ones."""

_TABLES = {r"\p{L}": _unicode.LETTERS, r"\p{N}": _unicode.NUMBERS, r"\s": _unicode.SPACES}
_PIECE_CHARACTERS = 1 << 20
_CUT = re.compile(r"[a-z](?= [A-Za-z])|\S\n(?=\S)")  # Python's \s takes in every space of the table and more
_LAST_OF_PLANE_0 = 0xFFFF
_STAND_INS = {r"\p{L}": 0x4E00, r"\p{N}": 0x0660}
_OTHER_STAND_IN = 0x2603


def split(text: str, pattern: str) -> list[str]:
    """The words of `text`, in order; joined they are `text` again."""
    return list(chain.from_iterable(split_pieces(text, pattern)))


def split_pieces(text: str, pattern: str) -> Iterator[list[str]]:
    """The same words, some at a time: less memory for long texts."""
    return (_split_piece(piece, pattern) for piece in pieces(text))


def count_words(texts: Iterable[str], pattern: str, counts: Counter[str] | None = None) -> Counter[str]:
    """How often each word occurs in `texts`, added to `counts` if given."""
    counts = Counter() if counts is None else counts
    for text in texts:
        for words in split_pieces(text, pattern):
            counts.update(words)
    return counts


def pieces(text: str, size: int = _PIECE_CHARACTERS) -> Iterator[str]:
    """`text` in pieces of about `size` characters with no word across two, so that memory stays bounded.

    No pattern looks back, and none has a word go on from a letter into a blank, nor through a newline that stands
    between two characters that are no spaces.
    """
    start = 0
    while len(text) - start > size:
        found = _CUT.search(text, start + size)
        if found is None:
            break
        yield text[start : found.end()]
        start = found.end()
    if start < len(text):
        yield text[start:]


def _split_piece(text: str, pattern: str) -> list[str]:
    compiled = _compiled(pattern)
    if text.isascii() or _is_plane_0(text):
        return compiled.findall(text)
    ends = accumulate(map(len, compiled.findall(_in_plane_0(text))), initial=0)
    return [text[start:end] for start, end in pairwise(ends)]


def _is_plane_0(text: str) -> bool:
    return len(text.encode("utf-16-le", "surrogatepass")) == 2 * len(text)


def _in_plane_0(text: str) -> str:
    """`text` with each character above plane 0 replaced by one of its class from plane 0.

    `re` looks a character up at once in a class of plane 0, and tries hundreds of ranges in turn above it.
    """
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").copy()
    high = points > _LAST_OF_PLANE_0
    points[high] = _stand_ins()[points[high] - (_LAST_OF_PLANE_0 + 1)]
    return points.tobytes().decode("utf-32-le", "surrogatepass")


@functools.cache
def _stand_ins() -> npt.NDArray[np.uint32]:
    """For each code point above plane 0, from its start, the one of plane 0 that stands for it."""
    table = np.full(0x10FFFF - _LAST_OF_PLANE_0, _OTHER_STAND_IN, dtype=np.uint32)
    for name, stand_in in _STAND_INS.items():
        for first, last in _unicode.ranges(_TABLES[name]):
            if first > _LAST_OF_PLANE_0:
                table[first - (_LAST_OF_PLANE_0 + 1) : last - _LAST_OF_PLANE_0] = stand_in
    return table


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """The split named `pattern`, for text of plane 0."""
    return re.compile(_written_out(PATTERNS[cast(Pattern, pattern)]))


def _written_out(regex: str) -> str:
    """`regex` with each class of the table as explicit ranges, whether inside brackets or alone."""
    bodies = {name: _body(table) for name, table in _TABLES.items()}
    parts = re.split(r"(\[[^\]]*\])", regex)
    for place, part in enumerate(parts):
        is_bracket = place % 2 == 1
        for name, body in bodies.items():
            part = part.replace(name, body if is_bracket else f"[{body}]")
        parts[place] = part.replace(r"\S", f"[^{bodies[chr(92) + 's']}]")
    return "".join(parts)


def _body(table: str) -> str:
    """The ranges of `table` in plane 0 as they stand between brackets."""
    in_plane_0 = [(first, last) for first, last in _unicode.ranges(table) if first <= _LAST_OF_PLANE_0]
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in in_plane_0)
