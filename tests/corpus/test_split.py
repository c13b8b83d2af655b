from __future__ import annotations

from alm.corpus.split import VALIDATION, cut, split_of


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
