"""Curves are whole, to scale, and told apart by more than colour."""

from __future__ import annotations

import itertools
import random
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from alm.page import TEMPLATES
from alm.report.chart import Curve, plot, scale
from alm.report.series import Series

SVG = "{http://www.w3.org/2000/svg}"


def curve(points: list[tuple[int, float | None]], **options: Any) -> Curve:
    return Curve(Series.of(points), **options)


def drawn(*curves: Curve, last_step: int = 100, **options: object) -> ElementTree.Element:
    return ElementTree.fromstring(plot("a < b", curves, last_step=last_step, **options))  # type: ignore[arg-type]


def paths(root: ElementTree.Element) -> list[str]:
    return [path.attrib["d"] for path in root.iter(f"{SVG}path") if "curve" in path.attrib["class"]]


def heights(root: ElementTree.Element) -> dict[str, float]:
    """Where the marks of the values are."""
    left = [text for text in root.iter(f"{SVG}text") if text.attrib.get("text-anchor") == "end" and "dx" in text.attrib]
    return {text.text or "": float(text.attrib["y"]) - 4 for text in left if (text.text or "")[0].isdigit()}


def test_a_curve_is_to_scale() -> None:
    root = drawn(curve([(10, 1.0), (60, 3.0), (100, 2.0)]))
    at = heights(root)
    assert (at["1"] + at["3"]) / 2 == pytest.approx(at["2"], abs=0.1)
    assert at["3"] < at["2"] < at["1"]
    [path] = paths(root)
    assert path == f"M100.0 {at['1']:.1f}L600.0 {at['3']:.1f}L1000.0 {at['2']:.1f}"
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "a < b"
    assert "1.0000 at step 10, least 1.0000 at step 10, 2.0000 at step 100" in (root.findtext(f"{SVG}desc") or "")


def test_a_logarithmic_scale_has_equal_distances_for_equal_ratios() -> None:
    at = heights(drawn(curve([(1, 0.01), (50, 1.0), (100, 100.0)]), is_log=True))
    assert (
        at["0.01"] - at["0.1"]
        == pytest.approx(at["1"] - at["10"], abs=0.1)
        == pytest.approx(at["10"] - at["100"], abs=0.1)
    )
    assert heights(drawn(curve([(1, 0.0), (2, -1.0)]), is_log=True))  # nothing above zero: a plain scale


def test_the_first_fall_is_in_the_picture_to_a_coarser_scale() -> None:
    used = scale([curve([(1, 90.0), (9, 50.0), (10, 4.0), (100, 2.0)])], last_step=100, from_zero=False, is_log=False)
    assert (used.low, used.fold, used.high) == (2.0, 4.0, 90.0)
    assert used.shares(np.array([2.0, 3.0, 4.0, 47.0, 90.0])) == pytest.approx([0, 0.375, 0.75, 0.875, 1])
    assert {2.0, 4.0} < set(used.marks())
    assert any(mark > 4 for mark in used.marks())
    with_low_start = [curve([(1, 0.0), (50, 1.0), (100, 0.5)], margin=0.75)]
    used = scale(with_low_start, last_step=100, from_zero=False, is_log=False)
    assert (used.low, used.fold, used.high) == (-0.25, None, 1.25)
    all_early = scale([curve([(1, 9.0), (2, 8.0)])], last_step=100, from_zero=True, is_log=False)
    assert (all_early.low, all_early.fold, all_early.high) == (0.0, None, 9.0)
    hardly_above = scale([curve([(1, 4.5), (50, 4.0), (100, 2.0)])], last_step=100, from_zero=False, is_log=False)
    assert (hardly_above.low, hardly_above.fold, hardly_above.high) == (2.0, None, 4.5)
    a_spike = curve(
        [(n, 3.0 - n / 100) for n in range(100)], pale=Series.of([(n, 3.0 + 9 * (n == 50)) for n in range(99)])
    )
    used = scale([a_spike], last_step=100, from_zero=False, is_log=False)
    assert (used.low, used.fold, used.high) == (2.01, 3.0, 12.0)


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize("from_zero", [False, True])
def test_every_value_of_every_curve_is_inside_the_picture(from_zero: bool, is_log: bool) -> None:
    draw = random.Random(1)
    for _ in range(60):
        curves = []
        for style in range(draw.randrange(1, 4)):
            size, fall = 10 ** draw.uniform(-6, 6), 10 ** draw.uniform(0, 4)
            points = [
                (n, size * (1 + fall / (n + 1)) * draw.choice([1, 1, 1, 30])) for n in range(draw.randrange(1, 100))
            ]
            margin = draw.choice([None, size / 10])
            curves.append(curve(points, pale=Series.of([(n, 2 * v) for n, v in points]), margin=margin, style=style))
        root = drawn(*curves, from_zero=from_zero, is_log=is_log)
        at = [float(y) for path in paths(root) for y in re.findall(r"[ML][\d.]+ (-?[\d.]+)", path)]
        at += [float(dot.attrib["cy"]) for dot in root.iter(f"{SVG}circle")]
        assert min(at) >= 7.9
        assert max(at) <= 200.1
        marks = sorted(heights(root).values())
        assert all(later - earlier > 10 for earlier, later in itertools.pairwise(marks))


def test_gaps_are_gaps_and_a_lone_value_is_seen() -> None:
    [path] = paths(drawn(curve([(10, 1.0), (20, 2.0), (30, None), (40, 1.5), (50, None), (60, 1.0), (70, 1.0)])))
    assert path.count("M") == 3
    assert len(re.findall(r"L", path)) == 2
    assert "h2" in path


def test_curves_differ_in_dashes_and_end_in_their_names() -> None:
    root = drawn(
        curve([(10, 2.0), (100, 1.0)], name="A", margin=0.1),
        curve([(10, 2.0), (50, 1.0)], name="B", style=1),
        curve([(10, 2.0), (100, 1.0)], name="C", style=2),
    )
    names = {text.text: text for text in root.iter(f"{SVG}text") if text.attrib.get("class") == "name"}
    assert {name: text.attrib["x"] for name, text in names.items()} == {"A": "100.00%", "B": "50.00%", "C": "100.00%"}
    placed = sorted(float(text.attrib["y"]) for text in names.values())
    assert placed[1] - placed[0] >= 14
    assert placed[2] - placed[1] >= 14
    kinds = [path.attrib["class"] for path in root.iter(f"{SVG}path")]
    assert kinds == ["curve of0", "curve of1", "curve of2", "bar of0"]
    style = (TEMPLATES / "page.css").read_text("utf-8")
    dashes = dict(re.findall(r"\.(of\d) \{ stroke: var\(--line\d\); stroke-dasharray: ([\d ]+);", style))
    assert len(set(dashes.values())) == len(dashes) == 7  # all but the first, which is whole


def test_a_margin_is_drawn_around_the_last_value() -> None:
    root = drawn(curve([(10, 2.0), (100, 1.0)], margin=0.5))
    at = heights(root)
    [bar] = [path.attrib["d"] for path in root.iter(f"{SVG}path") if "bar" in path.attrib["class"]]
    top, bottom = re.findall(r"M0 ([\d.]+)V([\d.]+)", bar)[0]
    unit = at["1"] - at["1.5"]
    assert float(bottom) - float(top) == pytest.approx(2 * unit, abs=0.2)
    assert (float(top) + float(bottom)) / 2 == pytest.approx(at["1"], abs=0.1)


def test_a_long_curve_makes_no_long_picture() -> None:
    points = [(step, float(step % 97)) for step in range(100_000)]
    assert len(plot("long", [Curve(Series.of(points), pale=Series.of(points))], last_step=100_000)) < 40_000


def test_tokens_stand_below_the_steps_where_they_are_known() -> None:
    texts = [text.text for text in drawn(curve([(1, 1.0), (100, 2.0)]), tokens_per_step=32_768).iter(f"{SVG}text")]
    assert texts[-1] == "tokens"
    assert "819k" in texts  # at step 25
    assert "tokens" not in [text.text for text in drawn(curve([(1, 1.0), (100, 2.0)])).iter(f"{SVG}text")]
