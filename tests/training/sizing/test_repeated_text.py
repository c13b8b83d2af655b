"""What repeated text is worth, and what keeps a run from learning it by heart."""

from __future__ import annotations

import itertools

import pytest
from builders import run_config

from alm.training.sizing.repeated_text import FEW_PASSES, effective_tokens, is_too_weak, regularisation


def test_more_passes_never_need_weaker_regularisation() -> None:
    found = [regularisation(passes) for passes in (0.1, 1, 1.5, 2, 3, 5, 8, 13, 21, 34, 100)]
    assert [one.weight_decay for one in found] == sorted(one.weight_decay for one in found)
    assert [one.dropout for one in found] == sorted(one.dropout for one in found)
    assert regularisation(1) == regularisation(0.5)


def test_new_text_counts_in_full_and_repeated_text_less_and_less() -> None:
    assert effective_tokens(1000, 0.5) == 500
    assert effective_tokens(1000, 1) == 1000
    assert effective_tokens(1000, 2) == pytest.approx(1968, abs=1)
    values = [effective_tokens(1000, passes) for passes in range(1, 200)]
    gains = [later - earlier for earlier, later in itertools.pairwise(values)]
    assert gains == sorted(gains, reverse=True)
    assert values[-1] < 1000 * (1 + 15.5)  # section 5: no number of passes is worth more than about 16 times the text


def test_only_a_run_that_sees_its_text_often_with_little_decay_is_too_weak() -> None:
    weak, strong = run_config(optim__weight_decay=0.1), run_config(optim__weight_decay=2.0)
    assert not is_too_weak(weak, FEW_PASSES)
    assert is_too_weak(weak, 20)
    assert not is_too_weak(strong, 20)


@pytest.mark.parametrize(
    ("passes", "decay", "dropout"), [(30**0.5, 0.3, 0.1), (170**0.5, 0.8, 0.2), (850**0.5, 1.2, 0.3)]
)
def test_half_way_between_two_measurements_is_the_square_root_of_their_product(
    passes: float, decay: float, dropout: float
) -> None:
    found = regularisation(passes)
    assert (found.weight_decay, found.dropout) == (pytest.approx(decay, abs=0.051), dropout)
