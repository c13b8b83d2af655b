from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import sha256

import pytest
from cases import for_each

from alm.corpus.split import (
    LONG_BYTES,
    TRAIN,
    VALIDATION,
    cut,
    in_pieces,
    is_few,
    piece_count,
    raised,
    share_of_hashes,
    split_of,
)


def test_the_held_out_share_is_what_was_asked_for() -> None:
    held = sum(split_of(f"{i:064x}", 0.1) == VALIDATION for i in range(20_000))
    assert abs(held - 2000) < 4 * (20_000 * 0.1 * 0.9) ** 0.5  # four standard deviations


def test_a_larger_share_holds_out_all_of_a_smaller_one() -> None:
    small, large = ({i for i in range(5000) if split_of(f"{i:064x}", f) == VALIDATION} for f in (0.01, 0.1))
    assert small < large


def test_a_text_is_cut_at_a_paragraph_near_its_end() -> None:
    text = "\n\n".join(f"paragraph {i} of the only book" for i in range(200))
    parts = cut(text, 0.05)
    assert parts is not None
    assert "".join(parts) == text
    assert 0.02 < len(parts[1]) / len(text) < 0.1
    assert parts[1].startswith("paragraph")


def test_a_single_line_is_not_cut() -> None:
    assert cut("one line only", 0.1) is None
    assert cut("\none line only", 0.1) is None


def book(paragraphs: int, *, seed: int = 0) -> str:
    draw = random.Random(seed)
    words = ["the", "Größe", "日本", "a", "runs", "I'm", "barn,", "again."]
    lines = (" ".join(draw.choices(words, k=draw.randrange(5, 120))) for _ in range(paragraphs))
    return "\n\n".join(f"{line}.\n" for line in lines)


def pieces_of(text: str, fraction: float) -> list[tuple[str, str]]:
    return in_pieces(text, sha256(text.encode()).hexdigest(), fraction)


def held(parts: list[tuple[str, str]]) -> list[str]:
    return [text for text, name in parts if name == VALIDATION]


SHAPES: dict[str, Callable[[str], str]] = {
    "paragraphs": str,
    "lines of Windows": lambda text: text.replace("\n", "\r\n"),
    "one line": lambda text: " ".join(text.split()),
    "no space at all": lambda text: "".join(text.split()),
    "Chinese": lambda text: "日本語の文章。" * (len(text) // 20),
    "much white space": lambda text: text[:5000] + "\n" * len(text) + text[5000:],
}


@for_each("fraction", [0.001, 0.01, 0.05, 0.2, 0.5])
@for_each("shape", SHAPES)
def test_parts_alternate_and_add_up_to_the_text(shape: str, fraction: float) -> None:
    text = SHAPES[shape](book(900))
    parts = pieces_of(text, fraction)
    assert "".join(part for part, _ in parts) == text
    assert all(part.strip() for part, _ in parts)
    assert [name for _, name in parts] == [(TRAIN, VALIDATION)[number % 2] for number in range(len(parts))]
    if shape != "much white space":
        assert held(parts)
        assert all(1000 < len(piece.encode()) < 6200 for piece in held(parts))


def test_pieces_are_spread_and_have_their_share() -> None:
    for seed in range(5):
        text = book(3000, seed=seed)
        parts = pieces_of(text, 0.05)
        share = sum(len(piece.encode()) for piece in held(parts)) / len(text.encode())
        assert 0.035 < share < 0.065
        between = [len(part) for part, name in parts if name == TRAIN]
        assert max(between[1:-1]) < 1.2 * min(between[1:-1])
        assert max(between[0], between[-1]) < between[1]


def test_pieces_begin_and_end_with_paragraphs_where_there_are_any() -> None:
    for text in (book(900), book(900).replace("\n", "\r\n")):
        ends = [part for part, _ in pieces_of(text, 0.05)[:-1]]
        assert len(ends) >= 8
        assert all(part.replace("\r", "").endswith("\n\n") for part in ends)


def test_a_chapter_is_a_better_border_than_a_paragraph() -> None:
    text = "\n\n".join(f"Words of chapter {n}. " * 8 + ("\n\n\n" if n % 4 == 0 else "") for n in range(800))
    ends = [part for part, _ in pieces_of(text, 0.05)[:-1]]
    assert all(part.endswith("\n\n\n") for part in ends)


def test_short_documents_stay_whole_and_counts_have_the_share_on_average() -> None:
    digests = [f"{number:064x}" for number in range(4000)]
    assert all(piece_count(LONG_BYTES - 1, digest, 0.5) == 0 for digest in digests)
    mean = sum(piece_count(50_000, digest, 0.01) for digest in digests) / len(digests)
    assert mean == pytest.approx(0.01 * 50_000 / 2048, rel=0.15)


def test_few_documents_are_counted_by_their_share_of_the_text() -> None:
    assert is_few(1999, 1999, 0.01)
    assert not is_few(2000, 2000, 0.01)
    assert not is_few(5, 5, 0.0)  # nothing is to be held out
    notes, one_book = 10_000, 10_000
    assert not is_few(notes, notes, 0.01)
    assert is_few(notes + one_book, notes + one_book**2, 0.01)


def test_the_share_of_hashes_selects_the_share_of_bytes() -> None:
    for start in range(50):  # ten documents: by a tenth of all hashes, a third of such choices would be none
        documents = [(f"{number:064x}", 100) for number in range(10 * start, 10 * start + 10)]
        chosen = share_of_hashes(documents, 0.1)
        assert sum(split_of(cluster, chosen) == VALIDATION for cluster, _ in documents) == 1
        larger = share_of_hashes(documents, 0.3)
        assert larger > chosen
        assert sum(split_of(cluster, larger) == VALIDATION for cluster, _ in documents) == 3
    assert share_of_hashes([], 0.1) == 0


def test_only_the_default_share_of_a_small_text_is_raised() -> None:
    assert raised(0.01, 50_000) == 0.1
    assert raised(0.01, 409_600) == 0.02
    assert raised(0.01, 1_000_000) == 0.01
    assert raised(0.03, 50_000) == 0.03
    assert raised(0.0, 50_000) == 0.0
    assert raised(0.01, 0) == 0.01
