"""Curves in a terminal: Braille dots, eight per cell, or stars if the terminal has only ASCII."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alm.report.chart import Curve, Scale, scale, short
from alm.report.series import Series

# Bits of the dots in a cell, row by row from the top, left and right: their sum is added to the blank cell.
_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BLANK = 0x2800
_LABEL = 7
_FAR = 1e6  # limit for dots outside the picture: a line from there is practically vertical

Grid = NDArray[np.bool_]
Floats = NDArray[np.float64]


def plot(series: Series, *, width: int, height: int, last_step: int, is_ascii: bool = False) -> list[str]:
    """Draw `height` lines of `width` cells, values at the left, and a line of steps; none without a value or room."""
    if not series.has_value() or width <= 2 * _LABEL or height < 2:
        return []
    inside = width - _LABEL - 1
    used = scale([Curve(series)], last_step=last_step, from_zero=False, is_log=False)
    grid = _drawn(series, used, last_step, rows=height if is_ascii else 4 * height, columns=inside * (2 - is_ascii))
    marks = [value for value in (used.fold, used.low, used.high) if value is not None]
    rows = _heights(np.array(marks), used, height).round().astype(int).tolist()
    labels = {row: short(value) for row, value in zip(rows, marks, strict=True)}
    lines = [
        f"{labels.get(row, ''):>{_LABEL}} {line}" for row, line in enumerate(_stars(grid) if is_ascii else _dots(grid))
    ]
    return [*lines, " " * (_LABEL + 1) + _steps(last_step, inside)]


def _steps(last_step: int, width: int) -> str:
    return f"0{f'step {last_step:,}':>{width - 1}}"


def _drawn(series: Series, used: Scale, last_step: int, *, rows: int, columns: int) -> Grid:
    """Draw lines from value to value in `rows` of `columns` dots.

    Values that share a column become one vertical line from the least to the greatest, whatever their number.
    """
    grid = np.zeros((rows, columns), dtype=np.bool_)
    x = np.minimum(series.steps * ((columns - 1) / last_step), _FAR)
    column = np.rint(x).astype(np.int32)
    begins = np.flatnonzero(np.diff(column, prepend=-1))
    tops, bottoms = (
        _heights(extreme.reduceat(series.values, begins), used, rows).tolist() for extreme in (np.fmax, np.fmin)
    )
    for at, top, bottom in zip(column[begins].tolist(), tops, bottoms, strict=True):
        if 0 <= at < columns and top == top:  # NaN is a gap
            grid[max(round(top), 0) : max(round(bottom) + 1, 0), at] = True
    ends = np.stack([begins[1:] - 1, begins[1:]])  # of lines between columns
    for (x0, x1), (y0, y1) in zip(
        x[ends].T.tolist(), _heights(series.values[ends], used, rows).T.tolist(), strict=True
    ):
        if y0 == y0 and y1 == y1:
            _slanted(grid, (x0, y0), (x1, y1))
    return grid


def _heights(values: Floats, used: Scale, rows: int) -> Floats:
    """Dots from the top."""
    return (1 - used.shares(values)) * (rows - 1)


def _slanted(grid: Grid, begin: tuple[float, float], end: tuple[float, float]) -> None:
    (x0, y0), (x1, y1) = begin, end
    rows, columns = grid.shape
    dots = round(max(abs(x1 - x0), min(abs(y1 - y0), 2 * rows))) + 1
    shares = np.arange(dots + 1) / dots
    x, y = (np.rint(a + shares * (b - a)).astype(np.int64) for a, b in ((x0, x1), (y0, y1)))
    is_inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    grid[y[is_inside], x[is_inside]] = True


def _dots(grid: Grid) -> list[str]:
    """Characters of four rows and two columns of dots each, without trailing blanks."""
    rows, columns = grid.shape
    cells = (grid.reshape(rows // 4, 4, columns // 2, 2) * np.array(_BITS)[:, None, :]).sum(axis=(1, 3))
    return ["".join(chr(_BLANK + cell) if cell else " " for cell in row).rstrip() for row in cells.tolist()]


def _stars(grid: Grid) -> list[str]:
    """One ASCII character per dot."""
    return ["".join("*" if cell else " " for cell in row).rstrip() for row in grid.tolist()]
