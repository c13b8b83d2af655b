"""The split against the library's own, and the laws of doing it piece by piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from alm.tokenizers import _unicode
from alm.tokenizers.pretokenize import PATTERNS, count_words, pieces, split

Words = Callable[[str], list[str]]


def test_the_pattern_is_frozen() -> None:
    assert PATTERNS == {
        "qwen2": (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    }


def test_a_split_by_hand() -> None:
    assert split("It's 2 cats,  no?\n\n I", "qwen2") == ["It", "'s", " ", "2", " cats", ",", " ", " no", "?\n\n", " I"]


def test_hard_text_splits_as_in_the_library(hard: str, library_words: Words) -> None:
    assert split(hard, "qwen2") == library_words(hard)


def test_every_scalar_value_splits_as_in_the_library(every_scalar: list[str], library_words: Words) -> None:
    for text in every_scalar:
        assert split(text, "qwen2") == library_words(text)


def test_random_text_splits_as_in_the_library(soup: list[str], library_words: Words) -> None:
    for text in soup:
        assert split(text, "qwen2") == library_words(text)


def test_every_cased_character_after_an_apostrophe(library_words: Words) -> None:
    scalars = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    cased = [c for c in scalars if ord(c) < 0x600 or len({c, c.lower(), c.upper(), c.casefold()}) > 1]
    for start in range(0, len(cased), 500):
        text = "".join(f"1'{c}1'l{c}1'{c}e" for c in cased[start : start + 500])
        assert split(text, "qwen2") == library_words(text)


def test_lone_surrogates_are_other_characters() -> None:
    assert split("a\ud800b \udfff\udc00\n👍", "qwen2") == ["a", "\ud800b", " \udfff\udc00\n", "👍"]


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_pieces_never_cut_a_word(size: int, soup: list[str], all_hard: list[str], library_words: Words) -> None:
    cuts = 0
    for text in [*all_hard, *soup, "\n".join(soup)]:
        cut = list(pieces(text, size))
        assert "".join(cut) == text
        assert [word for piece in cut for word in split(piece, "qwen2")] == library_words(text)
        cuts += len(cut) - 1
    assert cuts > 1000


def test_pieces_stay_near_their_size() -> None:
    assert max(map(len, pieces("a line of words\n" * 10_000, 1000))) <= 1000 + len("a line of words\n")


def test_what_python_calls_a_space_covers_the_class() -> None:
    spaces = [chr(p) for first, last in _unicode.ranges(_unicode.SPACES) for p in range(first, last + 1)]
    assert all(space.isspace() for space in spaces)


def test_a_long_run_is_not_quadratic() -> None:
    for text in ("a" * 1_000_000, " " * 1_000_000, "\n" * 1_000_000, "!" * 1_000_000):
        assert split(text, "qwen2") == [text]


def test_counts_add_up_over_texts(hard: str) -> None:
    counts = count_words(["a a b", hard], "qwen2")
    expected = Counter(split("a a b", "qwen2")) + Counter(split(hard, "qwen2"))
    assert counts == expected
    assert count_words(["a"], "qwen2", counts) is counts
    assert counts["a"] == expected["a"] + 1
