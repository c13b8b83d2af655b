"""Self-contained HTML pages with charts: no scripts, no fonts, nothing fetched.

All functions are pure and return markup. Text of users goes through `escaped`, whatever it holds.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence

# What no page may hold, and the marks that turn the direction of what stands around them.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]"
)
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2433; --quiet: #667085; --line: #e2e5ea; --paper: #ffffff;
  --first: #b9c6dd; --second: #2f6fb0; --good: #1b7f4b; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf0; --quiet: #98a2b3; --line: #333b49; --paper: #14181f;
  --first: #45536b; --second: #6ea8e0; --good: #5fc492; --bad: #f2857c; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .4rem;
  border-top: 1px solid var(--line); padding-top: 1.4rem; } h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .4rem 0 .8rem; } .quiet { color: var(--quiet); } .good { color: var(--good); } .bad { color: var(--bad); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .28rem .9rem .28rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--quiet); } .number { text-align: right; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; max-width: 46rem; display: block; } svg text { fill: var(--quiet); font-size: 11px; }
.first { fill: var(--first); } .second { fill: var(--second); } .axis { stroke: var(--line); }
details { margin: .3rem 0; } summary { cursor: pointer; } blockquote { margin: .5rem 0; padding-left: .8rem;
  border-left: 3px solid var(--line); font-size: .88rem; white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-size: .85em; overflow-wrap: anywhere; }
@media print { details > * { display: block; } body { margin: 0; } }
"""
_WIDTH, _HEIGHT, _FOOT, _LEFT = 720, 180, 34, 8
_MOST_BARS = 40


def escaped(text: str) -> str:
    """`text` as text of a page, with what cannot be shown replaced."""
    return html.escape(_UNPRINTABLE.sub("\ufffd", text))


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page of `parts`, which are markup."""
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escaped(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def heading(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{escaped(text)}</h{level}>"


def paragraph(text: str, *, tone: str = "") -> str:
    """A paragraph; `tone` is `quiet`, `good` or `bad`."""
    return f'<p class="{tone}">{escaped(text)}</p>' if tone else f"<p>{escaped(text)}</p>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """A table; cells that are whole numbers, or columns of them, are aligned right."""
    given = [list(row) for row in rows]
    numeric = [bool(given) and all(_is_number(row[i]) for row in given) for i in range(len(columns))]
    head = "".join(_cell("th", name, is_number) for name, is_number in zip(columns, numeric, strict=True))
    lines = "\n".join(
        "<tr>" + "".join(_cell("td", cell, n) for cell, n in zip(row, numeric, strict=True)) + "</tr>" for row in given
    )
    return f'<div class="scroll"><table>\n<tr>{head}</tr>\n{lines}\n</table></div>'


def _is_number(cell: str | int) -> bool:
    return isinstance(cell, int) or bool(re.fullmatch(r"[-+]?[\d,.]+ ?(%|s|MB/s|[kMGT]?B|bytes)?", cell))


def _cell(tag: str, value: str | int, is_number: bool) -> str:
    text = f"{value:,}" if isinstance(value, int) else value
    return f'<{tag} class="number">{escaped(text)}</{tag}>' if is_number else f"<{tag}>{escaped(text)}</{tag}>"


def details(summary: str, quotes: Iterable[tuple[str, str]]) -> str:
    """A part that opens when it is clicked: texts, each below its title."""
    inside = "\n".join(f"<div><code>{escaped(t)}</code><blockquote>{escaped(q)}</blockquote></div>" for t, q in quotes)
    return f"<details><summary>{escaped(summary)}</summary>\n{inside}\n</details>"


def bars(title: str, first: Mapping[str, int], second: Mapping[str, int], *, names: tuple[str, str]) -> str:
    """A bar for each key of `first`, and in front of it that of `second`; both have the same scale."""
    keys = list(first)[:_MOST_BARS]
    top = max([1, *(first[key] for key in keys), *(second.get(key, 0) for key in keys)])
    step = (_WIDTH - 2 * _LEFT) / max(1, len(keys))
    drawn = [
        _bar("first", first[key], top, i, step) + _bar("second", second.get(key, 0), top, i, step)
        for i, key in enumerate(keys)
    ]
    every = max(1, -(-len(keys) // 12))
    labels = [
        f'<text x="{_LEFT + (i + 0.5) * step:.1f}" y="{_HEIGHT + 14}" text-anchor="middle">{escaped(key)}</text>'
        for i, key in enumerate(keys)
        if i % every == 0
    ]
    said = f"pale: {names[0]}, dark: {names[1]}; highest bar {top:,}"
    note = f'<text x="{_LEFT}" y="{_HEIGHT + 30}">{escaped(said)}</text>'
    axis = f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _LEFT}" y1="{_HEIGHT}" y2="{_HEIGHT}"/>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _FOOT}" role="img" aria-label="{escaped(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">\n{"".join(drawn)}\n{axis}\n{"".join(labels)}\n{note}\n</svg>'
    )


def _bar(series: str, value: int, top: int, index: int, step: float) -> str:
    height = (_HEIGHT - 10) * value / top
    return (
        f'<rect class="{series}" x="{_LEFT + index * step + step * 0.08:.1f}" y="{_HEIGHT - height:.1f}" '
        f'width="{step * 0.84:.1f}" height="{height:.1f}"/>'
    )
