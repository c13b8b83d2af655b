"""Splits text into words, which a tokenizer then encodes one at a time.

Each split has a name. `PATTERNS` holds its regular expression, as `tokenizer.json` writes it except for `smollm`, which
is two steps there. The standard library's `re` runs the same expression with its character classes written out from a
pinned table (ADR 0001), so the words equal those of the `tokenizers` library, code point for code point.
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

Pattern = Literal["qwen2", "cl100k", "gpt2", "smollm"]
Split = Literal[Pattern, "sentencepiece"]
"""Splits of files: `sentencepiece` leaves a text in one piece, and cuts it only where no token reaches across."""

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
    # White space before a number is one word, because the number is split off before GPT-2's pattern is applied.
    "smollm": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+",
}
"""The splits by name: with single digits, with runs of up to three digits, GPT-2's, and GPT-2's after single digits."""


def tables(pattern: str) -> dict[str, str]:
    """Return the table of each character class in `PATTERNS[pattern]`, in the notation of `_unicode.ranges`."""
    # The step that splits off digits has newer tables in the library than its regular expressions have.
    numbers = _unicode.DIGITS if pattern == "smollm" else _unicode.NUMBERS
    return {r"\p{L}": _unicode.LETTERS, r"\p{N}": numbers, r"\s": _unicode.SPACES}


_CHUNK_CHARACTERS = 1 << 20
_CUT = re.compile(r"[a-z](?= [A-Za-z])|\S\n(?=\S)")  # Python's \s includes every space of the table
_BEFORE_BLANKS, _BLANKS_CUT = re.compile(" *[^ ]+| +"), re.compile("[^ ](?= )")
_LAST_OF_PLANE_0 = 0xFFFF
_STAND_INS = {r"\p{L}": 0x4E00, r"\p{N}": 0x0660}
_OTHER_STAND_IN = 0x2603


def split(text: str, pattern: str) -> list[str]:
    """Return the words of `text` in order. Joined, they are `text` again."""
    return list(chain.from_iterable(split_chunks(text, pattern)))


def split_chunks(text: str, pattern: str) -> Iterator[list[str]]:
    """Yield the same words in several lists, which takes less memory for a long text."""
    return (_split_chunk(chunk, pattern) for chunk in chunks(text, pattern=pattern))


def count_words(texts: Iterable[str], pattern: str, counts: Counter[str] | None = None) -> Counter[str]:
    """Count each word in `texts`, and add to `counts` if given."""
    counts = Counter() if counts is None else counts
    for text in texts:
        for words in split_chunks(text, pattern):
            counts.update(words)
    return counts


def chunks(text: str, size: int = _CHUNK_CHARACTERS, *, pattern: str = "qwen2") -> Iterator[str]:
    """Yield `text` in chunks of about `size` characters, so that memory stays bounded. No word crosses two chunks.

    The cut is safe because no pattern looks back, no word continues from a letter into a blank, and none continues
    through a newline between two characters that are not spaces.
    """
    cut = _BLANKS_CUT if pattern == "sentencepiece" else _CUT
    start = 0
    while len(text) - start > size:
        found = cut.search(text, start + size)
        if found is None:
            break
        yield text[start : found.end()]
        start = found.end()
    if start < len(text):
        yield text[start:]


def _split_chunk(text: str, pattern: str) -> list[str]:
    if pattern == "sentencepiece":
        return _BEFORE_BLANKS.findall(text)
    compiled = _compiled(pattern)
    if text.isascii() or _is_plane_0(text):
        return compiled.findall(text)
    ends = accumulate(map(len, compiled.findall(_in_plane_0(text, pattern))), initial=0)
    return [text[start:end] for start, end in pairwise(ends)]


def _is_plane_0(text: str) -> bool:
    return len(text.encode("utf-16-le", "surrogatepass")) == 2 * len(text)


def _in_plane_0(text: str, pattern: str) -> str:
    """Replace each character above plane 0 with one of the same class from plane 0.

    `re` finds a character in a class of plane 0 with one look-up; above, it tries hundreds of ranges in turn.
    """
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").copy()
    high = points > _LAST_OF_PLANE_0
    points[high] = _stand_ins(pattern)[points[high] - (_LAST_OF_PLANE_0 + 1)]
    return points.tobytes().decode("utf-32-le", "surrogatepass")


@functools.cache
def _stand_ins(pattern: str) -> npt.NDArray[np.uint32]:
    """Return the code point of plane 0 that stands for each code point above it."""
    table = np.full(0x10FFFF - _LAST_OF_PLANE_0, _OTHER_STAND_IN, dtype=np.uint32)
    for name, stand_in in _STAND_INS.items():
        for first, last in _unicode.ranges(tables(pattern)[name]):
            if first > _LAST_OF_PLANE_0:
                table[first - (_LAST_OF_PLANE_0 + 1) : last - _LAST_OF_PLANE_0] = stand_in
    return table


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile the split named `pattern`, for text of plane 0."""
    return re.compile(_written_out(PATTERNS[cast(Pattern, pattern)], tables(pattern)))


def _written_out(regex: str, tables: dict[str, str]) -> str:
    """Return `regex` with each class of `tables` as explicit ranges, inside brackets or alone."""
    bodies = {name: _body(table) for name, table in tables.items()}
    parts = re.split(r"(\[[^\]]*\])", regex)
    for place, part in enumerate(parts):
        is_bracket = place % 2 == 1
        for name, body in bodies.items():
            part = part.replace(name, body if is_bracket else f"[{body}]")
        parts[place] = part.replace(r"\S", f"[^{bodies[chr(92) + 's']}]")
    return "".join(parts)


def _body(table: str) -> str:
    """Return the ranges of `table` in plane 0, as written between brackets."""
    in_plane_0 = [(first, last) for first, last in _unicode.ranges(table) if first <= _LAST_OF_PLANE_0]
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in in_plane_0)
