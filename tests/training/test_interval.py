"""The interval around bits per byte: its parts against tables and hand, the whole against repeated draws."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from cases import for_each

from alm.training.validate import CONFIDENCE, GROUPS, confidence_margin, student_t

# Student's t for two-sided 95%, from printed tables.
TABLE = {7: 2.365, 8: 2.306, 9: 2.262, 19: 2.093, 39: 2.023}
TRIALS = 1500
# Four standard errors of a share of 95% in so many trials.
COVERAGE_TOLERANCE = 4 * math.sqrt(0.95 * 0.05 / TRIALS)


@for_each("degrees, value", TABLE.items())
def test_students_t_is_that_of_the_tables(degrees: int, value: float) -> None:
    assert student_t(degrees) == pytest.approx(value, abs=2e-3)


def test_rows_of_one_size_have_the_interval_of_a_mean() -> None:
    nats = np.array([10.0, 12.0, 9.0, 11.0, 10.5, 9.5, 13.0, 8.0])
    sizes = np.full(8, 5)
    standard_error = statistics.stdev(value / 5 / math.log(2) for value in nats) / math.sqrt(8)
    assert confidence_margin(nats, sizes) == pytest.approx(TABLE[7] * standard_error, rel=2e-3)


def test_the_more_text_the_narrower() -> None:
    draw = np.random.default_rng(2)
    nats, sizes = draw.normal(50.0, 10.0, 6400), np.full(6400, 40)
    wide, narrow = confidence_margin(nats[:1600], sizes[:1600]), confidence_margin(nats, sizes)
    assert wide is not None
    assert narrow is not None
    assert wide / narrow == pytest.approx(2.0, rel=0.4)  # the spread between 40 groups is known to about a tenth


def test_too_few_rows_or_no_text_have_none() -> None:
    assert confidence_margin(np.ones(7), np.ones(7, dtype=np.int64)) is None
    assert confidence_margin(np.ones(50), np.zeros(50, dtype=np.int64)) is None


@pytest.mark.parametrize("rows_of_a_document", [1, 4])
def test_the_interval_holds_the_true_value_as_often_as_it_says(rows_of_a_document: int) -> None:
    """Documents differ from each other, rows of one do not; rows hold more bytes or fewer."""
    draw = np.random.default_rng(7)
    rows, rate = 400, 1.3
    hits = 0
    for _ in range(TRIALS):
        of_document = draw.gamma(20.0, rate / 20.0, rows // rows_of_a_document)
        sizes = draw.integers(200, 1200, rows)
        nats = sizes * np.repeat(of_document, rows_of_a_document) + draw.normal(0.0, 30.0, rows)
        half = confidence_margin(nats, sizes)
        assert half is not None
        hits += abs(nats.sum() / sizes.sum() - rate) / math.log(2) <= half
    assert hits / TRIALS == pytest.approx(CONFIDENCE, abs=COVERAGE_TOLERANCE)
    assert rows // GROUPS >= 2 * rows_of_a_document  # what the interval asks for
