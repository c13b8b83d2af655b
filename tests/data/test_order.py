"""The order of sequences: a permutation for every size, and as good as a shuffle."""

from __future__ import annotations

import numpy as np
import pytest
from cases import for_each

from alm.data.order import permute

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 64, 65, 97, 128, 129, 1000, 1024, 1025, 4099]


def order(size: int, *, seed: int = 1, epoch: int = 0) -> np.ndarray:
    return permute(np.arange(size), size=size, seed=seed, epoch=epoch)


@for_each("size", SIZES)
def test_every_position_goes_to_another_and_none_is_left_out(size: int) -> None:
    for epoch in range(3):
        assert sorted(order(size, epoch=epoch).tolist()) == list(range(size))


def test_a_position_alone_goes_where_it_goes_among_others() -> None:
    whole = order(1000)
    for position in (0, 1, 499, 999):
        assert permute(np.array([position]), size=1000, seed=1, epoch=0)[0] == whole[position]


def test_another_seed_or_epoch_is_another_order() -> None:
    first = order(1000).tolist()
    assert order(1000, seed=2).tolist() != first
    assert order(1000, epoch=1).tolist() != first
    assert order(1000).tolist() == first


def test_large_sizes_need_no_memory() -> None:
    size = 10**12
    found = permute(np.array([0, 1, size - 1]), size=size, seed=3, epoch=5)
    assert len(set(found.tolist())) == 3
    assert ((found >= 0) & (found < size)).all()


# Ten expected in each cell are enough for this distribution.
# Chi-squared: its mean is the number of cells less one and its deviation the root of twice that.
# Six deviations from the mean happen to a fair shuffle about once in a billion times.
DEVIATIONS = 6


@pytest.mark.parametrize("size", [16, 17, 53])
def test_positions_and_places_are_independent(size: int) -> None:
    trials = 10 * size
    counts = np.zeros((size, size))
    for seed in range(trials):
        counts[np.arange(size), order(size, seed=seed)] += 1
    expected = trials / size
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = (size - 1) ** 2
    assert abs(statistic - freedom) < DEVIATIONS * (2 * freedom) ** 0.5


@pytest.mark.sampled(2)
@pytest.mark.parametrize("size", [97, 128, 129, 1009])
def test_neighbours_are_as_far_apart_as_in_a_shuffle(size: int) -> None:
    # For a random permutation |difference| has mean (n + 1) / 3; over many seeds the mean of means is sharp.
    means = [np.abs(np.diff(order(size, seed=seed))).mean() for seed in range(200)]
    expected = (size + 1) / 3
    spread = float(np.std(means)) / 200**0.5
    assert abs(float(np.mean(means)) - expected) < DEVIATIONS * spread
