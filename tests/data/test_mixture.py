"""Shares are exact, each source's order is its own, and shuffles look like shuffles at awkward sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cases import for_each

from alm.data.loader import BatchPlan
from alm.data.mixture import Mixture, mixture, plain
from alm.data.order import permute
from alm.errors import ConfigError

SOURCES = {"a": range(100), "b": range(100, 137), "c": range(137, 1000)}
AWKWARD = [1, 2, 3, 64, 65, 127, 1024, 1025, 10007, 65536, 65537]


def counts(rows: np.ndarray) -> dict[str, int]:
    return {name: int(((rows >= r.start) & (rows < r.stop)).sum()) for name, r in SOURCES.items()}


@pytest.mark.parametrize("weights", [{"a": 3, "b": 1}, {"a": 0.5, "b": 0.2, "c": 0.3}, {"c": 1, "a": 1e-4}])
def test_every_block_has_the_shares_exactly(weights: dict[str, float]) -> None:
    chosen = mixture(weights, SOURCES)
    total = sum(weights.values())
    for block in (0, 1, 17):
        rows, _ = chosen.rows(np.arange(block * chosen.block, (block + 1) * chosen.block), seed=5)
        for name in SOURCES:
            assert counts(rows)[name] == pytest.approx(weights.get(name, 0) / total * chosen.block, abs=1e-6)


def test_shares_that_no_block_can_hold_are_rounded() -> None:
    chosen = mixture({"a": 0.3333333, "b": 0.6666667, "c": 1e-9}, SOURCES)
    assert sum(chosen.fraction(share) for share in chosen.shares) == pytest.approx(1)
    assert chosen.fraction(chosen.shares[0]) == pytest.approx(1 / 3, abs=1e-4)
    assert chosen.shares[2].per_block == 1


def test_each_source_visits_each_of_its_rows_once_an_epoch() -> None:
    rows, _ = mixture({"a": 2, "b": 1}, SOURCES).rows(np.arange(3000), seed=1)
    for name, own in SOURCES.items():
        found = rows[(rows >= own.start) & (rows < own.stop)]
        epochs = [sorted(found[n : n + len(own)].tolist()) for n in range(0, len(found) - len(own), len(own))]
        assert all(epoch == list(own) for epoch in epochs), name


def test_the_order_of_a_source_is_that_of_its_name() -> None:
    def own(chosen: Mixture) -> list[int]:
        rows, _ = chosen.rows(np.arange(2000), seed=1)
        return rows[rows < 100].tolist()

    first, second = own(mixture({"a": 1, "b": 1}, SOURCES)), own(mixture({"a": 1, "c": 3}, SOURCES))
    assert first[: len(second)] == second[: len(first)]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("weights", [None, {"a": 3, "c": 1}])
def test_the_same_global_batches_at_any_world_size(world_size: int, weights: dict[str, float] | None) -> None:
    plan = BatchPlan(mixture(weights, SOURCES) if weights else plain(300), 10, 5, seed=3)
    seen = []
    for step in range(60):
        whole = plan.rows(step).tolist()
        parts = [plan.rows(step, rank=rank, world_size=world_size).tolist() for rank in range(world_size)]
        assert [row for part in parts for row in part] == whole
        seen += whole
    if weights is None:
        assert [sorted(seen[n : n + 300]) for n in (0, 300)] == [list(range(300))] * 2


def test_epochs_are_counted_by_source() -> None:
    assert plain(100).epochs(250) == {"": 2.5}
    assert mixture({"a": 3, "b": 1}, SOURCES).epochs(400) == {"a": 3.0, "b": pytest.approx(100 / 37)}


def test_a_source_that_is_not_there_is_told() -> None:
    match = r"names `d`, which has no sequences here \(sources with sequences: a, b, c\)"
    with pytest.raises(ConfigError, match=match):
        mixture({"d": 1}, SOURCES)


@for_each("size", AWKWARD)
def test_a_permutation_is_one_and_another_each_epoch_and_seed(size: int) -> None:
    every = np.arange(size)
    found = [permute(every, size=size, seed=seed, epoch=epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    assert all(np.array_equal(np.sort(rows), every) for rows in found)
    if size > 60:
        assert not np.array_equal(found[0], found[1])
        assert not np.array_equal(found[0], found[2])


@for_each("size", [size for size in AWKWARD if size >= 1024])
def test_successive_rows_are_as_far_apart_as_in_an_ideal_shuffle(size: int) -> None:
    rows = permute(np.arange(size), size=size, seed=11, epoch=4).astype(np.float64)
    # Two rows drawn without replacement are (n + 1) / 3 apart; the mean of n - 1 pairs spreads by n / sqrt(18 n).
    distance = np.abs(np.diff(rows)).mean()
    assert abs(distance - (size + 1) / 3) < 5 * size / math.sqrt(18 * size)
    # No correlation of a row with its place, or with the row before it: normal, with variance 1 / n.
    for one, other in ((rows, np.arange(size)), (rows[1:], rows[:-1])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(size)


@for_each("size", [size for size in AWKWARD if size >= 1024])
def test_batches_hold_as_many_rows_of_each_tenth_as_chance_would(size: int) -> None:
    rows = permute(np.arange(size), size=size, seed=7, epoch=0)
    batches = rows[: size // 64 * 64].reshape(-1, 64)
    expected = 64 / 10
    chi = sum(
        ((np.histogram(batch, bins=10, range=(0, size))[0] - expected) ** 2 / expected).sum() for batch in batches
    )
    degrees = 9 * len(batches)
    assert abs(chi - degrees) < 6 * math.sqrt(2 * degrees)
