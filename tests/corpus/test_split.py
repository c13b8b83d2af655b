from __future__ import annotations

import random

import pytest

from alm.corpus.split import TRAIN, VALIDATION, SplitDocument, assign, split_of, with_validation


def documents(texts: list[str], fraction: float) -> list[SplitDocument]:
    return [assign(text, origin=str(i), validation_fraction=fraction) for i, text in enumerate(texts)]


def splits(texts: list[str], fraction: float) -> list[str]:
    return [d.split for d in with_validation(documents(texts, fraction), validation_fraction=fraction)]


def test_the_held_out_share_is_what_was_asked_for() -> None:
    held = sum(split_of(f"{i:064x}", 0.1) == VALIDATION for i in range(20_000))
    assert abs(held - 2000) < 4 * (20_000 * 0.1 * 0.9) ** 0.5  # four standard deviations


def test_a_split_stays_when_documents_are_added_and_moved() -> None:
    texts = [f"text {i}" for i in range(3000)]
    before = dict(zip(texts, splits(texts, 0.05), strict=True))
    more = [f"other {i}" for i in range(500)] + texts[::-1]
    after = dict(zip(more, splits(more, 0.05), strict=True))
    assert all(after[text] == before[text] for text in texts)


def test_a_larger_share_holds_out_all_of_a_smaller_one() -> None:
    small, large = ({i for i in range(5000) if split_of(f"{i:064x}", f) == VALIDATION} for f in (0.01, 0.1))
    assert small < large


def test_exact_duplicates_are_on_one_side() -> None:
    texts = [f"text {i % 50}" for i in range(500)]
    by_text: dict[str, set[str]] = {}
    for text, split in zip(texts, splits(texts, 0.2), strict=True):
        by_text.setdefault(text, set()).add(split)
    assert all(len(found) == 1 for found in by_text.values())


def test_a_few_documents_hold_out_the_one_nearest_to_the_share() -> None:
    texts = ["a" * 10, "b" * 990, "c" * 1000, "d" * 100, "d" * 100]
    for fraction in (0.001,):  # so small that no hash falls below it
        found = splits(texts, fraction)
        assert found == [VALIDATION, TRAIN, TRAIN, TRAIN, TRAIN]
    nearest = [d.split for d in with_validation(documents(texts, 0.0), validation_fraction=0.05)]
    assert nearest == [TRAIN, TRAIN, TRAIN, VALIDATION, VALIDATION]  # 110 of 2200; both duplicates go


def test_a_single_document_is_cut_at_a_paragraph_near_its_end() -> None:
    text = "\n\n".join(f"paragraph {i} of the only book" for i in range(200))
    first, second = with_validation(documents([text], 0.0), validation_fraction=0.05)
    assert first.text + second.text == text
    assert (first.split, second.split) == (TRAIN, VALIDATION)
    assert 0.02 < len(second.text) / len(text) < 0.1
    assert second.text.startswith("paragraph")
    assert first.origin != second.origin


def test_a_single_line_is_not_cut() -> None:
    assert splits(["one line only"], 0.1) == [TRAIN]


def test_nothing_is_held_out_when_nothing_is_asked_for() -> None:
    assert splits(["a", "b", "c"], 0.0) == [TRAIN] * 3


@pytest.mark.parametrize("number", [1, 2, 3, 50])
def test_no_document_is_lost_or_moved(number: int) -> None:
    draw = random.Random(number)
    given = documents([f"{draw.random()}\n" * draw.randrange(1, 9) for _ in range(number)], 0.02)
    found = list(with_validation(given, validation_fraction=0.02))
    assert "".join(d.text for d in found) == "".join(d.text for d in given)
    assert sum(d.bytes for d in found) == sum(d.bytes for d in given)


def test_a_duplicate_far_behind_follows_what_was_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alm.corpus.split._HELD_BACK_BYTES", 100)
    texts = ["a" * 60, "b" * 50, "c" * 40, "b" * 50]
    found = [d.split for d in with_validation(documents(texts, 0.0), validation_fraction=0.45)]
    assert found == [TRAIN, VALIDATION, TRAIN, VALIDATION]
