"""Curves in a terminal: dots of Braille characters, eight to a cell, or stars where there are none."""

from __future__ import annotations

from collections.abc import Sequence

from alm.report.chart import Curve, Scale, scale, short
from alm.report.series import Point, pieces

# Bits of the dots in a cell, from the top, in its left and its right column: their sum is added to the blank cell.
_LEFT, _RIGHT = (0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80)
_BLANK = 0x2800
_LABEL = 7


def plot(points: Sequence[Point], *, width: int, height: int, last_step: int, is_ascii: bool = False) -> list[str]:
    """`height` lines of `width` cells, values at the left, and a line of steps below; none where there is no value."""
    curve = Curve(points)
    if not curve.values or width <= 2 * _LABEL or height < 2:
        return []
    inside = width - _LABEL - 1
    used = scale([curve], last_step=last_step, from_zero=False, is_log=False)
    canvas = _Stars(inside, height) if is_ascii else _Dots(inside, height)
    for piece in pieces(points):
        _draw(canvas, piece, used, last_step)
    labels = (
        {0: short(used.high), height - 1: short(used.low)} if used.high > used.low else {height // 2: short(used.low)}
    )
    lines = [f"{labels.get(row, ''):>{_LABEL}} {line}" for row, line in enumerate(canvas.lines())]
    return [*lines, " " * (_LABEL + 1) + _steps(last_step, inside)]


def _steps(last_step: int, width: int) -> str:
    return f"0{f'step {last_step:,}':>{width - 1}}"


class _Dots:
    """Four rows and two columns of dots in a cell."""

    def __init__(self, width: int, height: int) -> None:
        self.columns, self.rows = 2 * width, 4 * height
        self._cells = [[0] * width for _ in range(height)]

    def put(self, x: int, y: int) -> None:
        """Set a dot; those that are outside are not there."""
        if 0 <= x < self.columns and 0 <= y < self.rows:
            self._cells[y // 4][x // 2] |= (_RIGHT if x % 2 else _LEFT)[y % 4]

    def lines(self) -> list[str]:
        """The picture, without what would be blank at the end of a line."""
        return ["".join(chr(_BLANK + cell) if cell else " " for cell in row).rstrip() for row in self._cells]


class _Stars(_Dots):
    """One dot in a cell, of ASCII."""

    def __init__(self, width: int, height: int) -> None:
        self.columns, self.rows = width, height
        self._cells = [[0] * width for _ in range(height)]

    def put(self, x: int, y: int) -> None:
        if 0 <= x < self.columns and 0 <= y < self.rows:
            self._cells[y][x] = 1

    def lines(self) -> list[str]:
        return ["".join("*" if cell else " " for cell in row).rstrip() for row in self._cells]


def _draw(canvas: _Dots, piece: Sequence[tuple[int, float]], used: Scale, last_step: int) -> None:
    """Lines from value to value; the first fall leaves the picture at the top."""
    span = used.high - used.low
    places = [
        (
            step / last_step * (canvas.columns - 1),
            (used.high - value) / span * (canvas.rows - 1) if span > 0 else (canvas.rows - 1) / 2,
        )
        for step, value in piece
    ]
    for (x0, y0), (x1, y1) in zip(places, places[1:] or places, strict=False):
        dots = round(max(abs(x1 - x0), min(abs(y1 - y0), 2 * canvas.rows))) + 1
        for number in range(dots + 1):
            share = number / dots
            canvas.put(round(x0 + share * (x1 - x0)), round(y0 + share * (y1 - y0)))
