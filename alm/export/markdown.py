"""Markdown in which text from strangers is inert: no link, picture or HTML of theirs, no end of a block of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from alm import shown

_FENCE = 3
# Words that mean nothing in any dialect of Markdown: nothing is an address, no `_` begins or ends emphasis.
_PLAIN = re.compile(r"[^\W_](?:[^\W_]|[ ,;:!?'\"()+%±-]|[_/](?=[^\W_])|\.(?![^\W\d_]))*")
_ADDRESS = re.compile(r"//|www", re.IGNORECASE)
_PIPE = re.compile(r"(\\?)\|")


class Markdown(str):
    """Text that is Markdown already: what is in it of strangers went through `inert` or `code`."""

    __slots__ = ()


def inert(text: str) -> Markdown:
    r"""`text` on one line as it is where that means nothing to Markdown, and as code where it may.

    >>> inert("cc-by-sa-4.0"), inert("[a](https://b.c)"), inert("see `evil.com`"), inert("")
    ('cc-by-sa-4.0', '`[a](https://b.c)`', '`` see `evil.com` ``', '')
    """
    one_line = " ".join(text.split())
    if not one_line or (_PLAIN.fullmatch(one_line) and not _ADDRESS.search(one_line)):
        return Markdown(shown.line(one_line))
    return code(one_line)


def code(text: str) -> Markdown:
    """`text` in a line, between more backticks than it has in a row: nothing within means anything."""
    line = shown.line(text)
    marks = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return Markdown(f"{marks}{pad}{line}{pad}{marks}")


def fenced(language: str, lines: str) -> Markdown:
    """A block of code, between more backticks than it has in a row."""
    block = shown.text(lines)
    marks = "`" * max(_FENCE, max(map(len, re.findall("`+", block)), default=0) + 1)
    return Markdown(f"{marks}{language}\n{block}\n{marks}")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Markdown:
    """A table, whose cells are inert unless they are Markdown already."""
    lines = [columns, [Markdown("---")] * len(columns), *rows]
    return Markdown("\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))


def _cell(value: str) -> str:
    """`value` between two pipes: one of its own is escaped, and where that would be a backslash it is a number."""
    cell = value if isinstance(value, Markdown) else inert(value)
    return _PIPE.sub(lambda found: "\\\\x7c" if found[1] else "\\|", cell)
