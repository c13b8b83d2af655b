from __future__ import annotations

from pathlib import Path

import pytest
from cases import for_each

SEEN: list[tuple[str, int, Path]] = []


@for_each("letter", "ab")
@for_each("number", [1, 2])
def test_every_case_runs_with_the_fixtures(letter: str, number: int, tmp_path: Path) -> None:
    SEEN.append((letter, number, tmp_path))


def test_all_of_them_ran() -> None:
    assert [seen[:2] for seen in SEEN] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_a_failure_names_its_case() -> None:
    @for_each("number", [1, 2, 3])
    def odd(number: int) -> None:
        assert number % 2

    with pytest.raises(AssertionError) as caught:
        odd()
    assert caught.value.__notes__ == ["number = 2"]


@for_each("number, square", [(1, 1), (3, 9)])
def test_a_value_may_be_several(number: int, square: int) -> None:
    assert number * number == square
