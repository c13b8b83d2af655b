"""Numbers over steps: smoothing, thinning and axes, against examples worked out by hand."""

from __future__ import annotations

import random

import pytest
from cases import for_each

from alm.report.series import Series, decades, pieces, smoothed, thinned, ticks


def test_a_value_becomes_the_mean_of_its_neighbours() -> None:
    points = [(step, float(step)) for step in range(0, 100, 10)]  # four neighbours on a side
    means = smoothed(Series.of(points)).values
    assert means[0] == pytest.approx((0 + 10 + 20 + 30 + 40) / 5)
    assert means[4] == pytest.approx(40)
    assert means[9] == pytest.approx((50 + 60 + 70 + 80 + 90) / 5)
    assert smoothed(Series.of(points)).steps.tolist() == list(range(0, 100, 10))


def test_gaps_stay_and_count_for_nothing() -> None:
    points = [(1, 2.0), (2, None), (3, 4.0)]
    assert smoothed(Series.of(points)).points() == [(1, 3.0), (2, None), (3, 3.0)]
    found = pieces(Series.of([(1, None), *points, (4, None), (5, None)]))
    assert [piece.points() for piece in found] == [[(1, 2.0)], [(3, 4.0)]]
    assert pieces(Series.of([(1, None)])) == []


def test_a_long_curve_is_smoothed_over_more() -> None:
    points = [(step, float(step % 2)) for step in range(2000)]  # twenty neighbours on a side
    assert smoothed(Series.of(points)).values[1000] == pytest.approx(20 / 41)


@for_each("count", [1, 5, 9, 1000])
@for_each("gaps", [0.0, 0.3, 1.0])
def test_smoothing_is_a_mean_over_neighbours_that_have_a_value(count: int, gaps: float) -> None:
    draw = random.Random(count)
    values = [None if draw.random() < gaps else draw.random() for _ in range(count)]
    reach = max(4, count // 100)
    found = smoothed(Series.of(enumerate(values))).points()
    for place, (step, mean) in enumerate(found):
        near = [value for value in values[max(place - reach, 0) : place + reach + 1] if value is not None]
        assert step == place
        assert mean == (None if values[place] is None else pytest.approx(sum(near) / len(near)))


def test_a_sum_that_no_number_holds_is_a_gap() -> None:
    assert smoothed(Series.of([(1, 1e308), (2, 1e308)])).points() == [(1, None), (2, None)]


def test_the_newest_value_and_that_of_a_step() -> None:
    series = Series.of([(1, 2.0), (5, None), *((step, None) for step in range(6, 9000))])
    assert (series.last(), series.at(1), series.at(5), series.at(2), series.at(9000)) == (2.0, 2.0, None, None, None)
    assert Series.of([]).last() is None


def test_thinning_keeps_ends_and_spikes() -> None:
    draw = random.Random("thinning")
    piece = [(step, draw.random()) for step in range(10_000)]
    piece[4321] = (4321, 50.0)
    piece[8765] = (8765, -50.0)
    kept = thinned(Series.of(piece), 100).points()
    assert len(kept) <= 104
    assert {piece[0], piece[-1], piece[4321], piece[8765]} <= set(kept)
    assert kept == sorted(kept)
    assert thinned(Series.of(piece[:100]), 100).points() == piece[:100]


@for_each(
    "low, high, count, marks",
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
