"""The parts of a page: a stranger's text in any of them is text, and the page may fetch and run nothing."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from cases import for_each
from jinja2 import UndefinedError

from alm import formatting, page
from alm.report.chart import Curve, plot
from alm.report.series import Series

HOSTILE = [
    "</title></style></script><script>alert(1)</script>",
    "\"'><img src=https://evil.example onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "<a href='javascript:alert(1)'>x</a> <svg onload=alert(1)> <!-- <![CDATA[",
    "&lt;script&gt; &#60;b&#62; &amp;",
    "\x1b]52;c;ZXZpbA==\x07\u202e\u2028\x00\x9b31m\udce9",
]


EVERY_PART = """
{% extends "page.html" %}
{% from "parts.html" import bars, facts, key, quote, table %}
{% block body %}
<h1>{{ title }}</h1>
{{ table(given) }}{{ facts([pair]) }}{{ quote(*pair) }}{{ bars(lengths) }}{{ key(0) }}{{ drawn }}
<details><summary>{{ title }}</summary><p>{{ "a " ~ title }}</p></details>
{% endblock %}
"""


class Seen(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def every_part(text: str) -> str:
    """A page on which `text` stands wherever a text can."""
    table = page.Table([text, "b"], [[text, 1], [text, text]], breaks_words=True)
    bars = page.Bars(text, {text: 2}, {text: 1}, names=(text, text))
    drawn = plot(text, [Curve(Series.of([(1, 2.0), (2, 1.0)]), name=text)], last_step=2)
    template = page.environment().from_string(EVERY_PART)
    return template.render(title=text, generator="x", given=table, pair=(text, text), lengths=bars, drawn=drawn)


@for_each("text", HOSTILE)
def test_text_of_a_stranger_is_text_everywhere(text: str) -> None:
    made = every_part(text)
    found, harmless = Seen(made), Seen(every_part("harmless"))
    assert found.tags == harmless.tags
    assert not any(
        name.startswith("on") or name in ("src", "href", "style") for _, names in found.tags for name in names
    )
    assert not set(made) & set("\x00\x07\x1b\x9b\u2028\u202e\udce9")
    if "\x1b" not in text:
        assert found.text.count(text) > 15
        assert text in found.values
    else:
        assert r"\x1b]52;c;ZXZpbA==\x07\u202e\u2028\x00\u009b31m\xe9" in found.text


def test_a_page_may_fetch_and_run_nothing() -> None:
    assert any("default-src 'none'" in value and "script-src" not in value for value in Seen(every_part("x")).values)
    assert page.is_made_by("x", every_part("y").encode())


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="nothing"):
        page.environment().from_string("{{ nothing }}").render()


@for_each("number", [0, 828, 1_100, 2_300_000, 4 * 10**9, 5 * 10**12])
def test_sizes_and_speeds_of_any_unit_are_numbers(number: int) -> None:
    size = formatting.size(number)
    assert page.Table(("size", "speed"), [(size, f"{size}/s")]).is_number == [True, True]
