"""The split against the library's own, and the laws of doing it piece by piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from alm.tokenizers import _unicode
from alm.tokenizers._kernels.compiling import kernel
from alm.tokenizers._kernels.text import PATTERN_CODES, classes, word_end
from alm.tokenizers._kernels.words import WordCounter, joined
from alm.tokenizers.pretokenize import PATTERNS, Pattern, chunks, count_words, split

Words = Callable[[str], list[str]]


@pytest.fixture(params=["plain", "compiled"])
def words_of(request: pytest.FixtureRequest, pattern: str) -> Words:
    """The words of a text by either way."""
    return partial(split, pattern=pattern) if request.param == "plain" else partial(_compiled, pattern=pattern)


@kernel
def _ends(data, stop, classes, pattern, ends):  # type: ignore[no-untyped-def]
    many, at = 0, np.int64(0)
    while at < stop:
        at = word_end(data, at, stop, classes, pattern)
        ends[many] = at
        many += 1
    return many


def _compiled(text: str, pattern: str) -> list[str]:
    data, bounds = joined([text])
    ends = np.zeros(len(data), dtype=np.int64)
    many = _ends(data, bounds[1], classes(pattern), PATTERN_CODES[pattern], ends)
    cuts = [0, *ends[:many].tolist()]
    return [data[start:stop].tobytes().decode("utf-8", "surrogatepass") for start, stop in pairwise(cuts)]


def test_the_patterns_are_frozen(regexes: dict[str, str]) -> None:
    assert regexes == PATTERNS


BY_HAND = {
    "qwen2": ["It", "'S", " ", "1", "2", "3", "4", " (", "cats", ")?\n\n", " ", " I"],
    "cl100k": ["It", "'S", " ", "123", "4", " (", "cats", ")?\n\n", " ", " I"],
    "gpt2": ["It", "'", "S", " 1234", " (", "cats", ")?", "\n\n ", " I"],
    "smollm": ["It", "'", "S", " ", "1", "2", "3", "4", " (", "cats", ")?", "\n\n ", " I"],
}


def test_a_split_by_hand(words_of: Words, pattern: str) -> None:
    assert words_of("It'S 1234 (cats)?\n\n  I") == BY_HAND[pattern]


def test_hard_text_splits_as_in_the_library(all_hard: list[str], words_of: Words, library_words: Words) -> None:
    for text in all_hard:
        assert words_of(text) == library_words(text)


@pytest.mark.sampled(3)
def test_every_scalar_value_splits_as_in_the_library(
    every_scalar: list[str], words_of: Words, library_words: Words
) -> None:
    for text in every_scalar:
        assert words_of(text) == library_words(text)


def test_random_text_splits_as_in_the_library(soup: list[str], words_of: Words, library_words: Words) -> None:
    for text in soup:
        assert words_of(text) == library_words(text)


@pytest.mark.sampled(2)
def test_every_cased_character_after_an_apostrophe(words_of: Words, library_words: Words) -> None:
    scalars = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    cased = [c for c in scalars if ord(c) < 0x600 or len({c, c.lower(), c.upper(), c.casefold()}) > 1]
    for start in range(0, len(cased), 500):
        text = "".join(f"1'{c}1'l{c}1'{c}e" for c in cased[start : start + 500])
        assert words_of(text) == library_words(text)


def test_lone_surrogates_are_other_characters(pattern: str, words_of: Words) -> None:
    if pattern in ("qwen2", "cl100k"):
        assert words_of("a\ud800b \udfff\udc00\n👍") == ["a", "\ud800b", " \udfff\udc00\n", "👍"]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("size", [1, 7, 50])
def test_pieces_never_cut_a_word(
    size: int, soup: list[str], all_hard: list[str], pattern: str, library_words: Words
) -> None:
    cuts = 0
    prose = " ".join("ab it's x1 don't.\n y\nz" for _ in range(600))
    for text in [*all_hard, *soup, "\n".join(soup), " ".join(soup), prose]:
        cut = list(chunks(text, size))
        assert "".join(cut) == text
        assert [word for piece in cut for word in split(piece, pattern)] == library_words(text)
        cuts += len(cut) - 1
    assert cuts > 1000


def test_pieces_stay_near_their_size() -> None:
    assert max(map(len, chunks("a line of words\n" * 10_000, 1000))) <= 1000 + len("a line of words\n")


def test_what_python_calls_a_space_covers_the_class() -> None:
    spaces = [chr(p) for first, last in _unicode.ranges(_unicode.SPACES) for p in range(first, last + 1)]
    assert all(space.isspace() for space in spaces)


def test_a_long_run_is_not_quadratic(words_of: Words) -> None:
    for text in ("a" * 1_000_000, " " * 1_000_000, "\n" * 1_000_000, "!" * 1_000_000):
        assert words_of(text) == [text]


def test_counts_add_up_over_texts(all_hard: list[str]) -> None:
    for text in all_hard:
        counts = count_words(["a a b", text], "qwen2")
        expected = Counter(split("a a b", "qwen2")) + Counter(split(text, "qwen2"))
        assert counts == expected, text
        assert count_words(["a"], "qwen2", counts) is counts
        assert counts["a"] == expected["a"] + 1, text


@pytest.mark.sampled(3)
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_compiled_counts_are_the_plain_ones(
    workers: int, pattern: Pattern, soup: list[str], all_hard: list[str]
) -> None:
    texts = [*all_hard, *soup, "x" * 300_000, *(f"word{n}" for n in range(40_000))]
    texts += ["abcdefghijstuvwxyzab abcdefghjistuvwxyzab abcdefghijstuvwxyzab"]
    # tables and pools must grow
    counters = [WordCounter(pattern) for _ in range(workers)]
    for number, counter in enumerate(counters):
        counter.feed(*joined(texts[number::workers]))
    for other in counters[1:]:
        counters[0].add(other)
    words = counters[0].words()
    assert {word.decode(): count for word, count in words} == count_words(texts, pattern)
    assert sorted(words.counts.tolist(), reverse=True) == words.counts.tolist()
    alone = WordCounter(pattern)
    alone.feed(*joined(texts))
    assert list(alone.words()) == list(words)
