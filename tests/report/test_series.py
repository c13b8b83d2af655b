"""Numbers over steps: smoothing, thinning and axes, against examples worked out by hand."""

from __future__ import annotations

import random

import pytest

from alm.report.series import Point, decades, pieces, smoothed, thinned, ticks


def test_a_value_becomes_the_mean_of_its_neighbours() -> None:
    points: list[Point] = [(step, float(step)) for step in range(0, 100, 10)]  # four neighbours on a side
    means = [value for _, value in smoothed(points)]
    assert means[0] == pytest.approx((0 + 10 + 20 + 30 + 40) / 5)
    assert means[4] == pytest.approx(40)
    assert means[9] == pytest.approx((50 + 60 + 70 + 80 + 90) / 5)
    assert [step for step, _ in smoothed(points)] == list(range(0, 100, 10))


def test_gaps_stay_and_count_for_nothing() -> None:
    points: list[Point] = [(1, 2.0), (2, None), (3, 4.0)]
    assert smoothed(points) == [(1, 3.0), (2, None), (3, 3.0)]
    assert pieces([(1, None), *points, (4, None), (5, None)]) == [[(1, 2.0)], [(3, 4.0)]]
    assert pieces([(1, None)]) == []


def test_a_long_curve_is_smoothed_over_more() -> None:
    points: list[Point] = [(step, float(step % 2)) for step in range(2000)]  # twenty neighbours on a side
    assert smoothed(points)[1000][1] == pytest.approx(20 / 41)


def test_thinning_keeps_ends_and_spikes() -> None:
    draw = random.Random("thinning")
    piece = [(step, draw.random()) for step in range(10_000)]
    piece[4321] = (4321, 50.0)
    piece[8765] = (8765, -50.0)
    kept = thinned(piece, 100)
    assert len(kept) <= 104
    assert {piece[0], piece[-1], piece[4321], piece[8765]} <= set(kept)
    assert kept == sorted(kept)
    assert thinned(piece[:100], 100) == piece[:100]


@pytest.mark.parametrize(
    ("low", "high", "count", "marks"),
    [
        (0, 1, 5, [0, 0.25, 0.5, 0.75, 1]),
        (0, 800, 5, [0, 200, 400, 600, 800]),
        (1.93, 2.07, 6, [1.95, 2.0, 2.05]),
        (0, 3e-4, 4, [0, 1e-4, 2e-4, 3e-4]),
        (-5, 5, 3, [-5, 0, 5]),
        (7, 7, 5, [7]),
    ],
)
def test_marks_of_an_axis(low: float, high: float, count: int, marks: list[float]) -> None:
    assert ticks(low, high, count) == pytest.approx(marks)


def test_marks_of_a_logarithmic_axis() -> None:
    assert decades(0.4, 30) == [0.5, 1, 2, 5, 10, 20]
    assert decades(0.001, 1000) == pytest.approx([0.001, 0.01, 0.1, 1, 10, 100, 1000])
