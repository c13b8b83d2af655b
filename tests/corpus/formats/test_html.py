"""Kind `html`: the text a reader would read, whatever state the page is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from alm.corpus.document import Document, Dropped
from alm.corpus.formats import Reading, html
from alm.corpus.formats._html_text import html_text
from alm.errors import InputError

PAGE = """<?xml version="1.0"?><!DOCTYPE html>
<html lang="en"><head><title>A &amp; B</title><meta charset="utf-8"><style>p > a { x: y }</style>
<script>if (a < b && c > d) document.write("<p>no</p>")</script></head>
<body><nav><ul><li>Menu</li></ul></nav><header>Logo</header>
<!-- <p>not this</p> -->
<h1>The head</h1>
<p>One   <b>bold</b>
word&nbsp;&eacute;&#8212;<i>x</i><br>two<br/><br>three</p><p>Next</p>
<div>a</div><div>b</div>
<ul><li>first</li><li><p>second</p></li></ul>
<table><tr><th>k</th><th>v</th></tr><tr><td>1</td><td></td><td>2</td></tr></table>
<pre>
  def f():
      return "&lt;a&gt;"
</pre>
<form>Search <input name="q"></form><aside>Ad</aside><footer>Copyright</footer></body></html>"""

TEXT = """A & B

The head

One bold word\xa0é—x
two

three

Next

a
b

- first
- second

k\tv
1\t\t2

  def f():
      return "<a>\""""


def test_a_page_reads_as_a_reader_would_read_it() -> None:
    assert html_text(PAGE) == TEXT


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<title>Same</title><h1>Same</h1><p>x", "Same\n\nx"),
        ("<title>Alone</title>", "Alone"),
        ("<title>Open<body><p>x", "Open\n\nx"),
        ("1 < 2 & 3 > 2 <3", "1 < 2 & 3 > 2 <3"),
        ("a<form>b<p>c", "ab\n\nc"),  # never closed: it would swallow the rest
        ("a<nav>b<nav>c</nav>d</nav>e</nav>f", "aef"),
        ("a<svg/>b<nav/>c", "abc"),
        ("a<!-- b -- c --> d<!---->e<!-->f-->g", "a def-->g"),
        ("a<!-- b", "a<!-- b"),
        ("a<p title='>'>b<p title=\">\">c", "a\n\nb\n\nc"),
        ("a<p title='>b</p>c", "a\n\nb\n\nc"),
        ("a<SCRIPT>b</script x>c</Script >d<style>e", "acd"),
        ("&#99999999999;<b>&#" + "9" * 5000 + ";", "\ufffd&#" + "9" * 5000 + ";"),
        ("<pre>a\r\n b<b>c</b></pre></pre>d\n e", "a\n bc\n\nd e"),
        ("", ""),
    ],
)
def test_pages_in_any_state(page: str, text: str) -> None:
    assert html_text(page) == text


@pytest.mark.parametrize(
    "piece", ["<!--", "<a ", "<", "</", "<a '", '<a ">"', "<script>", "<nav>", "&", "<?", "<a =", "<![CDATA["]
)
def test_time_grows_with_the_page_and_not_with_its_square(piece: str) -> None:
    html_text(piece * 100_000)  # quadratic, this would take minutes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.html"


def test_pages_are_marked_as_web_and_decoded_as_they_say(path: Path) -> None:
    pages = {
        "é".encode(): "é",
        b"\xef\xbb\xbf\xc3\xa9": "é",
        "é".encode("utf-16"): "é",
        b"<meta charset='latin-1'>caf\xe9": "café",
        b'<meta http-equiv="Content-Type" content="text/html; charset=windows-1252">caf\xe9\x80': "café€",
    }
    for data, text in pages.items():
        path.write_bytes(data)
        assert list(html.read(path, (), Reading())) == [Document(text, path.as_posix(), is_web=True)]
    path.write_bytes(b"caf\xe9")
    found = list(html.read(path, (), Reading(encoding="latin-1")))
    assert found == [Document("café", path.as_posix(), is_web=True)]


def test_pages_that_cannot_be_read_are_told_or_counted(path: Path) -> None:
    path.write_bytes(b"<meta charset=nonsense>caf\xe9")
    with pytest.raises(InputError, match="byte 0xE9 at offset 26"):
        list(html.read(path, (), Reading()))
    (dropped,) = html.read(path, (), Reading(on_bad_input="skip"))
    assert dropped == Dropped("bad_utf8", 27, 1, path.as_posix(), "<meta charset=nonsense>caf\ufffd")
    path.write_bytes(b"x" * 100)
    assert list(html.read(path, (), Reading(max_document_bytes=99))) == [
        Dropped("too_long", 100, 1, path.as_posix(), "x" * 100)
    ]
