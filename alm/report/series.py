"""Numbers over the steps of a run: smoothing, thinning for charts, and marks for an axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_FEWEST_NEIGHBOURS = 4
_REACHES = 100
_MANY_MARKS = 100


@dataclass(frozen=True, eq=False)
class Series:
    """Values over rising steps. A value is finite, or NaN if the step has none: a gap in the curve."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    @classmethod
    def of(cls, points: Iterable[tuple[int, float | None]]) -> Series:
        """Make a series from points.

        >>> Series.of([(1, 2.0), (2, None)]).points()
        [(1, 2.0), (2, None)]
        """
        given = list(points)
        steps = np.array([step for step, _ in given], dtype=np.int64)
        return cls(steps, np.array([math.nan if value is None else value for _, value in given], dtype=np.float64))

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, part: slice | NDArray[np.bool_] | NDArray[np.int64]) -> Series:
        return Series(self.steps[part], self.values[part])

    @cached_property
    def known_count(self) -> int:
        """The number of points that have a value."""
        return len(self) - int(np.isnan(self.values).sum())

    def points(self) -> list[tuple[int, float | None]]:
        """Steps and values, None for a gap."""
        values = (None if math.isnan(value) else value for value in self.values.tolist())
        return list(zip(self.steps.tolist(), values, strict=True))

    def has_value(self) -> bool:
        """Whether there is anything but gaps."""
        return self.last() is not None

    def known(self) -> Series:
        """The points that have a value."""
        return self[~np.isnan(self.values)]

    def last(self) -> float | None:
        """The newest value, None if there is none."""
        for end in range(len(self), 0, -_LOOKED_AT):
            values = self.values[max(end - _LOOKED_AT, 0) : end]
            found = np.flatnonzero(~np.isnan(values))
            if len(found):
                return float(values[found[-1]])
        return None

    def at(self, step: int) -> float | None:
        """The value of `step`, None if there is none."""
        place = int(np.searchsorted(self.steps, step))
        if place == len(self) or self.steps[place] != step or math.isnan(self.values[place]):
            return None
        return float(self.values[place])


_LOOKED_AT = 4096  # values to search at a time: the newest is nearly always among the last ones
NOTHING = Series.of([])


def smoothed(series: Series) -> Series:
    """Average each value with its neighbours on both sides, so that the curve does not lag; gaps stay gaps.

    Each side has a few neighbours, or a hundredth of the points if that is more, and fewer at the ends.
    """
    reach = max(_FEWEST_NEIGHBOURS, len(series) // _REACHES)
    is_gap = np.isnan(series.values)
    with np.errstate(over="ignore", invalid="ignore"):
        if is_gap.any():
            means = _windows(np.where(is_gap, 0.0, series.values), reach) / np.maximum(_windows(~is_gap, reach), 1)
            means[is_gap] = math.nan
        else:
            places = np.arange(len(series))
            means = _windows(series.values, reach)
            means /= np.minimum(places, reach) + np.minimum(places[::-1], reach) + 1
    means[np.isinf(means)] = math.nan
    return Series(series.steps, means)


def _windows(values: NDArray[np.float64] | NDArray[np.bool_], reach: int) -> NDArray[np.float64]:
    """The sum of each value and up to `reach` neighbours on each side."""
    sums = np.zeros(len(values) + 1 + 2 * reach)
    np.cumsum(values, out=sums[reach + 1 : len(sums) - reach])
    sums[len(sums) - reach :] = sums[len(sums) - reach - 1]
    return sums[2 * reach + 1 :] - sums[: -2 * reach - 1]


def pieces(series: Series) -> list[Series]:
    """The parts of a curve between its gaps."""
    is_known = np.concatenate([[False], ~np.isnan(series.values), [False]])
    edges = np.flatnonzero(is_known[1:] != is_known[:-1]).tolist()
    return [series[begin:end] for begin, end in zip(edges[::2], edges[1::2], strict=True)]


def thinned(piece: Series, most: int) -> Series:
    """Reduce to about `most` points: the least and greatest of each group, so that no spike is lost, and both ends."""
    if len(piece) <= most:
        return piece
    # Two points are kept of each group, hence half as many groups as points.
    groups = (np.arange(len(piece)) / (2 * len(piece) / most)).astype(np.int64)
    order = np.lexsort((piece.values, groups))
    begins = np.flatnonzero(np.diff(groups, prepend=-1))
    ends = np.append(begins[1:], len(piece)) - 1
    return piece[np.unique(np.concatenate([[0, len(piece) - 1], order[begins], order[ends]]))]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them, at equal distances.

    >>> ticks(0, 200)
    [0.0, 50.0, 100.0, 150.0, 200.0]
    >>> ticks(2.31, 2.94, 4)
    [2.5, 2.75]
    """
    if not high > low:
        return [low]
    rough = (high - low) / max(count - 1, 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    distance = next(magnitude * m for m in (1, 2, 2.5, 5, 10) if magnitude * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / distance - 1e-9), math.floor(high / distance + 1e-9)
    digits = max(0, 2 - math.floor(math.log10(distance)))
    return [round(number * distance, digits) for number in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """The marks 1, 2 and 5 of each power of ten from `low` to `high`; only the powers if there are many.

    >>> decades(0.3, 12)
    [0.5, 1.0, 2.0, 5.0, 10.0]
    """
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = (1,) if high / low > _MANY_MARKS else (1, 2, 5)
    found = [float(f"{mark}e{exponent}") for exponent in exponents for mark in marks]
    return [value for value in found if low <= value <= high]
