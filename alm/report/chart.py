"""Curves as SVG whose text keeps its size at every page width, readable without colour.

Positions along the steps are percentages of the picture's width, heights are pixels. SVG paths cannot use percentages,
so the curves are in an inner picture that is stretched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from alm import page
from alm.report.series import NOTHING, Series, decades, pieces, thinned, ticks

_HEIGHT = 208
_PAD = 8  # pixels above the highest and below the lowest value
_WIDTH = 1000  # units of the inner picture
_MOST_POINTS = 500
_MOST_DOTS = 40
_LETTER_HEIGHT, _MARK_DISTANCE = 14, 4
_MARKS = 6
_MOST_BARS, _BAR_WIDTH = 4, 8  # margins beside each other, pixels for each
# The loss falls so far at first that the rest would look flat. Where values before this share of the steps are above
# all others by more than their range, they are drawn to a coarser scale, in this share of the height.
_SETTLED_FROM = 0.1
_FOLDED_HEIGHT = 0.25
_FOLDED_MARKS = 4
_USUAL = 0.98  # share of single values that are no spikes: those do not set the scale either


@dataclass(frozen=True)
class Curve:
    """One run's values. `name` is written at its end, `margin` drawn around its last value; `style` is its dashes."""

    points: Series
    name: str = ""
    pale: Series = NOTHING
    margin: float | None = None
    style: int = 0

    @cached_property
    def values(self) -> Series:
        """The points that have a value."""
        return self.points.known()

    @property
    def end(self) -> tuple[int, float]:
        """The step and value of the last point that has a value."""
        return int(self.values.steps[-1]), float(self.values.values[-1])


@dataclass(frozen=True)
class Scale:
    """Maps values to heights, from `low` to `high`.

    `is_log` makes it logarithmic, for values above zero. Above `fold` it is coarser.
    """

    low: float
    high: float
    is_log: bool = False
    fold: float | None = None

    def shares(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Heights of `values`: 0 for `low`, 1 for `high`, NaN for a gap."""
        if self.is_log:
            return _shares(np.log10(np.maximum(values, self.low)), math.log10(self.low), math.log10(self.high))
        if self.fold is None:
            return _shares(values, self.low, self.high)
        below, above = _shares(values, self.low, self.fold), _shares(values, self.fold, self.high)
        return np.where(above > 0, 1 - _FOLDED_HEIGHT + _FOLDED_HEIGHT * above, (1 - _FOLDED_HEIGHT) * below)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return _HEIGHT - _PAD - float(self.shares(np.array([value]))[0]) * (_HEIGHT - 2 * _PAD)

    def marks(self) -> list[float]:
        """The values of the grid lines."""
        if self.fold is not None:
            found = ticks(self.low, self.fold, _MARKS)
            limit = self.y(self.fold) - _LETTER_HEIGHT - _MARK_DISTANCE  # room for the words at the fold
            above = [value for value in ticks(self.fold, self.high, _FOLDED_MARKS) if self.y(value) <= limit]
            return found + (above or [self.high])
        found = decades(self.low, self.high) if self.is_log else []
        return found if len(found) > 1 else ticks(self.low, self.high, _MARKS)


def _shares(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    span = high / 2 - low / 2  # halved first: the difference of two large floats can overflow
    if span <= 0:
        return np.where(np.isnan(values), values, 0.5)
    with np.errstate(over="ignore"):
        return (values / 2 - low / 2) / span


def scale(curves: Iterable[Curve], *, last_step: int, from_zero: bool, is_log: bool) -> Scale:
    """The scale that shows all values and all margins; folded where the first fall would make the rest look flat."""
    found: list[NDArray[np.float64]] = []
    settled: list[NDArray[np.float64]] = []
    for curve in curves:
        every, late, noise = curve.points, *(_late(points, last_step) for points in (curve.points, curve.pale.known()))
        margins = curve.end[1] + np.array([-curve.margin, curve.margin]) if curve.margin else every.values[:0]
        found += [every.values, curve.pale.values, margins]
        settled += [(late if late.has_value() else every).values, margins]
        settled += [np.quantile(noise.values, [_USUAL])] if noise else []
    values = np.concatenate(found)
    positive = values[values > 0] if is_log else values[:0]
    used = positive if len(positive) else values
    low, high = float(np.fmin.reduce(used)), float(np.fmax.reduce(used))
    if len(positive):
        return Scale(low, high, is_log=high > low)
    low = min(0.0, low) if from_zero else low
    fold = float(np.fmax.reduce(np.concatenate(settled)))
    is_folded = high / 2 - fold / 2 > fold / 2 - low / 2 > 0
    return Scale(low, high, fold=fold if is_folded else None)


def _late(points: Series, last_step: int) -> Series:
    return points[int(np.searchsorted(points.steps, _SETTLED_FROM * last_step)) :]


def plot(
    title: str,
    curves: Sequence[Curve],
    *,
    last_step: int,
    tokens_per_step: int | None = None,
    from_zero: bool = False,
    is_log: bool = False,
) -> str:
    """Draw the curves over steps 0 to `last_step`; `tokens_per_step` adds the tokens below the steps.

    At least one curve must have a value.
    """
    curves = [curve for curve in curves if curve.values]
    used = scale(curves, last_step=last_step, from_zero=from_zero, is_log=is_log)
    barred = [curve for curve in curves if curve.margin] if len(curves) <= _MOST_BARS else []
    right = _BAR_WIDTH * len(barred) if len(curves) > 1 else 0
    return page.render(
        "chart.svg",
        title=title,
        description=" ".join(map(described, curves)),
        width=_WIDTH,
        height=_HEIGHT,
        rows=[(used.y(value), short(value)) for value in used.marks()],
        fold=None if used.fold is None else used.y(used.fold),
        columns=[_column(step, last_step, tokens_per_step or 0) for step in ticks(0, last_step)],
        has_tokens=bool(tokens_per_step),
        paths=[path for curve in curves for path in _paths(curve, used, last_step)],
        dots_of_curves=[_dots(curve, used, last_step) for curve in curves],
        bars=[
            _bar(curve, used, last_step, right=_BAR_WIDTH * (number + 0.5) if right else 0)
            for number, curve in enumerate(barred)
        ],
        names=_names(curves, used, last_step),
        right=right,
    )


def described(curve: Curve) -> str:
    """A sentence that describes the curve to a screen reader."""
    places = [0, int(curve.values.values.argmin()), -1]
    texts = [f"{shown(float(curve.values.values[at]))} at step {curve.values.steps[at]:,}" for at in places]
    return f"{f'{curve.name}: ' if curve.name else ''}{texts[0]}, least {texts[1]}, {texts[2]}."


def shown(value: float) -> str:
    """Format a value in the few digits that a table needs.

    >>> [shown(v) for v in (0.0, 2.94461, 0.00123456, 12345.6, 123.456)]
    ['0', '2.9446', '0.0012346', '12,346', '123.5']
    """
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.1f}"
    return f"{value:.4f}" if size >= 0.1 else f"{value:.5g}"


def short(value: float) -> str:
    """Format an axis label as short as possible, with k, M, G and T for powers of a thousand.

    >>> [short(v) for v in (0.0, 0.0005, 2.5, 150.0, 12500.0, 3e6, 5e-6)]
    ['0', '0.0005', '2.5', '150', '12.5k', '3M', '5e-06']
    """
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def _x(step: float, last_step: int) -> str:
    return f"{100 * step / last_step:.2f}%"


def _column(step: float, last_step: int, tokens_per_step: int) -> tuple[str, str, str]:
    """The place of a step, and what stands below it."""
    tokens = step * tokens_per_step
    return _x(step, last_step), short(step), short(float(f"{tokens:.3g}")) if tokens else ""


def _paths(curve: Curve, used: Scale, last_step: int) -> Iterable[tuple[str, str]]:
    if curve.pale:
        yield f"curve pale of{curve.style}", _path(curve.pale, used, last_step)
    yield f"curve of{curve.style}", _path(curve.points, used, last_step)


def _path(points: Series, used: Scale, last_step: int) -> str:
    drawn = []
    for piece in pieces(points):
        # Each piece gets its share of the points, which bounds the size of the page for any number of steps.
        kept = thinned(piece, max(2, _MOST_POINTS * len(piece) // len(points)))
        known = zip(kept.steps.tolist(), kept.values.tolist(), strict=True)
        places = [f"{_WIDTH * step / last_step:.1f} {used.y(value):.1f}" for step, value in known]
        # A single value between gaps becomes a short line: a path of one point draws nothing.
        drawn.append(f"M{'L'.join(places)}" if len(places) > 1 else f"M{places[0]}h2")
    return "".join(drawn)


def _dots(curve: Curve, used: Scale, last_step: int) -> list[tuple[int, str, float]]:
    """A dot for each value, if there are few: its style and place."""
    if len(curve.values) > _MOST_DOTS or curve.pale:
        return []
    known = curve.values.points()
    return [(curve.style, _x(step, last_step), used.y(value)) for step, value in known if value is not None]


def _bar(curve: Curve, used: Scale, last_step: int, *, right: float) -> tuple[int, str, str]:
    """The margin at the end of a curve: its style, its place and its path."""
    step, value = curve.end
    assert curve.margin is not None
    top, bottom = used.y(value + curve.margin), used.y(value - curve.margin)
    path = f"M{right - 3:.0f} {top:.1f}h6M{right:.0f} {top:.1f}V{bottom:.1f}M{right - 3:.0f} {bottom:.1f}h6"
    return curve.style, _x(step, last_step), path


def _names(curves: Sequence[Curve], used: Scale, last_step: int) -> list[tuple[str, str, float]]:
    """The names at the ends of the curves, with their places."""
    named = sorted((curve for curve in curves if curve.name), key=lambda curve: used.y(curve.end[1]))
    heights = _apart([used.y(curve.end[1]) for curve in named])
    return [(curve.name, _x(curve.end[0], last_step), y) for y, curve in zip(heights, named, strict=True)]


def _apart(heights: Sequence[float]) -> list[float]:
    """Move rising `heights` apart, so that names there do not overlap and none is below the picture."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + _LETTER_HEIGHT) if placed else height)
    limit = float(_HEIGHT - _LETTER_HEIGHT / 2)
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], limit)
        limit = placed[index] - _LETTER_HEIGHT
    return placed
