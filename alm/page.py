"""Self-contained HTML pages: no scripts, no fonts, nothing fetched.

The pages are Jinja templates in `alm/templates/`; Python only collects their values. Every value is escaped, and so are
characters that cannot be shown. If any got past that, the content security policy would still keep the page from
fetching or running anything.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from alm import shown

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).with_name("templates")
_NUMBER = re.compile(r"[-+]?[\d,.:]+( ± [\d.]+)?(e[-+]\d+)? ?(%|s|(?:[kMGT]?B|bytes)(/s)?)?")
_MOST_BARS, _MOST_LABELS = 40, 12
_HEAD_BYTES = 1024


@dataclass(frozen=True)
class Table:
    """A table; columns of numbers are aligned right. `breaks_words` lets hashes and paths wrap."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | int]]
    breaks_words: bool = False

    @property
    def is_number(self) -> list[bool]:
        """Whether each column holds numbers and nothing else."""
        return [_are_numbers([row[i] for row in self.rows if row[i] != ""]) for i in range(len(self.columns))]


def _are_numbers(cells: Sequence[str | int]) -> bool:
    return bool(cells) and all(isinstance(cell, int) or _NUMBER.fullmatch(cell) for cell in cells)


@dataclass(frozen=True)
class Bars:
    """A bar for each key of `first`, with that of `second` in front of it, on the same scale."""

    title: str
    first: Mapping[str, int]
    second: Mapping[str, int]
    names: tuple[str, str]

    @property
    def values(self) -> list[tuple[str, int, int]]:
        """The keys that are drawn, each with its two values."""
        return [(key, self.first[key], self.second.get(key, 0)) for key in list(self.first)[:_MOST_BARS]]

    @property
    def highest(self) -> int:
        """The value of the highest bar."""
        return max(1, *(max(pair) for _, *pair in self.values))

    @property
    def labelled_every(self) -> int:
        """The number of bars from a label to the next."""
        return -(-len(self.values) // _MOST_LABELS)


def render(template: str, **values: object) -> Markup:
    """Return the text of a template with `values`, which is markup for other templates."""
    from markupsafe import Markup

    return Markup(environment().get_template(template).render(values))


def is_made_by(generator: str, data: bytes) -> bool:
    """Whether `data` begins like a page that was rendered with this `generator`."""
    return f'<meta name="generator" content="{generator}">'.encode() in data[:_HEAD_BYTES]


@cache
def environment() -> Environment:
    """Return the environment of the templates, in which a value that is missing is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["pixels"] = "{:.1f}".format
    return made


def _escaped(value: object) -> object:
    """Return text with escapes for markup and for characters that cannot be shown. `Markup` stays as it is."""
    from markupsafe import Markup

    return value if isinstance(value, Markup) or not isinstance(value, str) else Markup(html.escape(shown.text(value)))
