"""Self-contained HTML pages with charts: no scripts, no fonts, nothing fetched.

All functions are pure and return markup. Text from users goes through `escaped`. If any got past it, the content
security policy would still keep the page from fetching or running anything.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence

from alm import shown

_NUMBER = re.compile(r"[-+]?[\d,.:]+( ± [\d.]+)?(e[-+]\d+)? ?(%|s|MB/s|[kMGT]?B|bytes)?")
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2433; --quiet: #5b6577; --line: #e2e5ea; --paper: #ffffff;
  --first: #b9c6dd; --second: #2f6fb0; --good: #1b7f4b; --bad: #b3261e;
  --line0: #2f6fb0; --line1: #c2410c; --line2: #1b7f4b; --line3: #8e44ad; --line4: #8a5a00; --line5: #0e7490;
  --line6: #be185d; --line7: #475569; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e7eaf0; --quiet: #9fa9b9; --line: #333b49;
  --paper: #14181f; --first: #45536b; --second: #6ea8e0; --good: #5fc492; --bad: #f2857c;
  --line0: #6ea8e0; --line1: #f59e6b; --line2: #5fc492; --line3: #c79be6; --line4: #e0b94f; --line5: #57c7dc;
  --line6: #f28ab5; --line7: #a9b4c4; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; overflow-wrap: anywhere; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .4rem;
  border-top: 1px solid var(--line); padding-top: 1.4rem; } h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .4rem 0 .8rem; overflow-wrap: anywhere; } .quiet { color: var(--quiet); } .good { color: var(--good); }
.bad { color: var(--bad); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .28rem .9rem .28rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--quiet); } .number { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
td { overflow-wrap: break-word; max-width: 24rem; } .breaks td { overflow-wrap: anywhere; min-width: 5rem; }
.breaks .number { white-space: normal; }
svg { width: 100%; height: auto; max-width: 46rem; display: block; } svg text { fill: var(--quiet); font-size: 11px; }
.first { fill: var(--first); } .second { fill: var(--second); } .axis { stroke: var(--line); }
details { margin: .3rem 0; } summary { cursor: pointer; } blockquote { margin: .5rem 0; padding-left: .8rem;
  border-left: 3px solid var(--line); font-size: .88rem; white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-size: .85em; overflow-wrap: anywhere; }
.facts { display: flex; flex-wrap: wrap; gap: .4rem 2.2rem; margin: 1rem 0; } .facts div { min-width: 6rem; }
.facts dt { color: var(--quiet); font-size: .85rem; } .facts dd { margin: 0; font-size: 1.15rem;
  font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 0 2rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); gap: .2rem 1.4rem; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(13rem, 100%), 1fr)); gap: .2rem 1.4rem; }
figure { margin: 1.2rem 0; min-width: 0; } figcaption { margin-bottom: .5rem; } figcaption b { display: block; }
svg.plot { box-sizing: border-box; width: calc(100% - 5.4rem); height: 260px; max-width: none; overflow: visible;
  margin: 0 1.8rem 0 3.6rem; }
svg.plot text { font-variant-numeric: tabular-nums; } svg.plot .name { font-weight: 700; font-size: 13px; }
svg.key { display: inline-block; width: 2.6rem; height: .7rem; vertical-align: middle; margin-right: .5rem; }
.curve { fill: none; stroke-width: 2px; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.pale { opacity: .35; stroke-width: 1px; stroke-dasharray: none; }
.of0 { stroke: var(--line0); } .of1 { stroke: var(--line1); stroke-dasharray: 7 4; }
.of2 { stroke: var(--line2); stroke-dasharray: 2 3; } .of3 { stroke: var(--line3); stroke-dasharray: 12 4 2 4; }
.of4 { stroke: var(--line4); stroke-dasharray: 14 6; } .of5 { stroke: var(--line5); stroke-dasharray: 4 2 1 2; }
.of6 { stroke: var(--line6); stroke-dasharray: 1 5; } .of7 { stroke: var(--line7); stroke-dasharray: 9 3 3 3 3 3; }
circle.of0, circle.of1, circle.of2, circle.of3, circle.of4, circle.of5, circle.of6, circle.of7, .bar {
  fill: var(--paper); stroke-dasharray: none; stroke-width: 1.5px; }
@media print { details::details-content { content-visibility: visible; block-size: auto; }
  details > * { display: block; } .screen { display: none; } .scroll { overflow: visible; }
  body { margin: 0; max-width: none; font-size: 10pt; }
  figure, blockquote, .facts { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""
# Allows styles inside the page and nothing else: no scripts, pictures or forms, and no other base address for links.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_WIDTH, _HEIGHT, _FOOT, _LEFT = 720, 180, 34, 8
_MOST_BARS = 40
_HEAD_BYTES = 1024


def escaped(text: str) -> str:
    """`text` as text of a page, with escapes for characters that cannot be shown."""
    return html.escape(shown.text(text))


def page(title: str, parts: Iterable[str], *, generator: str) -> str:
    """A complete page of `parts`, which are markup. `generator` names its maker, for `is_made_by`."""
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{_mark(generator)}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escaped(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _mark(generator: str) -> str:
    return f'<meta name="generator" content="{escaped(generator)}">'


def is_made_by(generator: str, data: bytes) -> bool:
    """Whether `data` begins like a page of `generator`."""
    return _mark(generator).encode() in data[:_HEAD_BYTES]


def heading(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{escaped(text)}</h{level}>"


def paragraph(text: str, *, tone: str = "") -> str:
    """A paragraph; `tone` is `quiet`, `good` or `bad`."""
    return f'<p class="{tone}">{escaped(text)}</p>' if tone else f"<p>{escaped(text)}</p>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str | int]], *, breaks_words: bool = False) -> str:
    """A table; columns of numbers are aligned right. `breaks_words` lets hashes and paths wrap."""
    given = [list(row) for row in rows]
    numeric = [_is_of_numbers([row[i] for row in given]) for i in range(len(columns))]
    head = "".join(_cell("th", name, is_number) for name, is_number in zip(columns, numeric, strict=True))
    lines = "\n".join(
        "<tr>" + "".join(_cell("td", cell, n) for cell, n in zip(row, numeric, strict=True)) + "</tr>" for row in given
    )
    kind = ' class="breaks"' if breaks_words else ""
    return f'<div class="scroll"><table{kind}>\n<tr>{head}</tr>\n{lines}\n</table></div>'


def _is_of_numbers(cells: Sequence[str | int]) -> bool:
    told = [cell for cell in cells if cell != ""]
    return bool(told) and all(isinstance(cell, int) or _NUMBER.fullmatch(cell) for cell in told)


def _cell(tag: str, value: str | int, is_number: bool) -> str:
    text = f"{value:,}" if isinstance(value, int) else value
    return f'<{tag} class="number">{escaped(text)}</{tag}>' if is_number else f"<{tag}>{escaped(text)}</{tag}>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A few names with their values, side by side."""
    inside = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{inside}</dl>'


def quote(title: str, text: str) -> str:
    """A text below its title."""
    return f"<div><code>{escaped(title)}</code><blockquote>{escaped(text)}</blockquote></div>"


def side_by_side(parts: Iterable[str], *, kind: str = "grid") -> str:
    """Parts side by side as far as there is room: `grid` for charts, `cards` and `row` for texts."""
    return f'<div class="{kind}">\n{chr(10).join(parts)}\n</div>'


def folded(summary: str, parts: Iterable[str], *, is_open: bool = False, on_paper: bool = True) -> str:
    """A part that opens when it is clicked. In print it is open, or left out without `on_paper`."""
    inside = "\n".join(parts)
    kind = "" if on_paper else ' class="screen"'
    return f"<details{kind}{' open' if is_open else ''}><summary>{escaped(summary)}</summary>\n{inside}\n</details>"


def details(summary: str, quotes: Iterable[tuple[str, str]]) -> str:
    """A part that opens when it is clicked: texts, each below its title."""
    return folded(summary, (quote(title, text) for title, text in quotes))


def figure(title: str, note: str, chart: str, parts: Iterable[str]) -> str:
    """A chart, which is markup, with its caption above and more parts below."""
    caption = f'<figcaption><b>{escaped(title)}</b><span class="quiet">{escaped(note)}</span></figcaption>'
    return f"<figure>{caption}\n{chart}\n{chr(10).join(parts)}\n</figure>"


def bars(title: str, first: Mapping[str, int], second: Mapping[str, int], *, names: tuple[str, str]) -> str:
    """A bar for each key of `first`, with that of `second` in front of it, on the same scale."""
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
