"""Numbers over the steps of a run: smoothed, thinned to what a picture can show, and marks for an axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby

Point = tuple[int, float | None]  # step and value, None where there was none: a gap in the curve
_FEWEST_NEIGHBOURS = 4
_REACHES = 100
_MANY_MARKS = 100


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Each value's mean with its neighbours on both sides, so that the curve does not lag; gaps stay gaps.

    There are a few neighbours on a side, or a hundredth of the points where that is more, and fewer at the ends.
    """
    reach = max(_FEWEST_NEIGHBOURS, len(points) // _REACHES)
    sums = list(accumulate((value or 0.0 for _, value in points), initial=0.0))
    counts = list(accumulate((value is not None for _, value in points), initial=0))
    found: list[Point] = []
    for index, (step, value) in enumerate(points):
        first, last = max(0, index - reach), min(len(points), index + reach + 1)
        mean = (sums[last] - sums[first]) / max(counts[last] - counts[first], 1)
        found.append((step, None if value is None else mean))
    return found


def pieces(points: Iterable[Point]) -> list[list[tuple[int, float]]]:
    """The parts of a curve between its gaps."""
    found: list[list[tuple[int, float]]] = [[]]
    for step, value in points:
        if value is not None:
            found[-1].append((step, value))
        elif found[-1]:
            found.append([])
    return [piece for piece in found if piece]


def thinned(piece: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """About `most` points at most: of neighbours the least and the greatest, so that no spike is lost, and the ends."""
    if len(piece) <= most:
        return list(piece)
    width = 2 * len(piece) / most
    kept = {0, len(piece) - 1}
    for _, group in groupby(range(len(piece)), key=lambda index: int(index / width)):
        indices = sorted(group, key=lambda index: piece[index][1])
        kept |= {indices[0], indices[-1]}
    return [piece[index] for index in sorted(kept)]


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
    """The marks 1, 2 and 5 of each power of ten from `low` to `high`; of the powers alone where that is many.

    >>> decades(0.3, 12)
    [0.5, 1.0, 2.0, 5.0, 10.0]
    """
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = (1,) if high / low > _MANY_MARKS else (1, 2, 5)
    found = [float(f"{mark}e{exponent}") for exponent in exponents for mark in marks]
    return [value for value in found if low <= value <= high]
