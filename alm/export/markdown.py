"""Markdown in which text from strangers is inert: it adds no links, pictures or HTML, and ends none of our blocks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from alm import shown

_FENCE = 3
# Text without meaning in any dialect of Markdown: no addresses, and no `_` that begins or ends emphasis.
_PLAIN = re.compile(r"[^\W_](?:[^\W_]|[ ,;:!?'\"()+%±-]|[_/](?=[^\W_])|\.(?![^\W\d_]))*")
_ADDRESS = re.compile(r"//|www", re.IGNORECASE)
_PIPE = re.compile(r"(\\?)\|")


class Markdown(str):
    """Text that is already Markdown: any text from strangers in it went through `inert` or `code`."""

    __slots__ = ()


def inert(text: str) -> Markdown:
    r"""Return `text` on one line: unchanged if it has no meaning in Markdown, else as code.

    >>> inert("cc-by-sa-4.0"), inert("[a](https://b.c)"), inert("see `evil.com`"), inert("")
    ('cc-by-sa-4.0', '`[a](https://b.c)`', '`` see `evil.com` ``', '')
    """
    one_line = " ".join(text.split())
    if not one_line or (_PLAIN.fullmatch(one_line) and not _ADDRESS.search(one_line)):
        return Markdown(shown.line(one_line))
    return code(one_line)


def code(text: str) -> Markdown:
    """Return `text` as code in a line, between more backticks than it has in a row, so that it stays text."""
    line = shown.line(text)
    marks = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return Markdown(f"{marks}{pad}{line}{pad}{marks}")


def fenced(language: str, lines: str) -> Markdown:
    """Return a block of code, between more backticks than it has in a row."""
    block = shown.text(lines)
    marks = "`" * max(_FENCE, max(map(len, re.findall("`+", block)), default=0) + 1)
    return Markdown(f"{marks}{language}\n{block}\n{marks}")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Markdown:
    """Return a table whose cells are inert unless they are already Markdown."""
    lines = [columns, [Markdown("---")] * len(columns), *rows]
    return Markdown("\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))


def _cell(value: str) -> str:
    r"""Return `value` for a cell: a pipe in it is escaped, or written as `\x7c` after a backslash."""
    cell = value if isinstance(value, Markdown) else inert(value)
    return _PIPE.sub(lambda found: "\\\\x7c" if found[1] else "\\|", cell)
