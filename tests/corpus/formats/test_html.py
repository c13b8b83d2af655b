"""Kind `html`: the text a reader would read, whatever state the page is in."""

from __future__ import annotations

from pathlib import Path

import pytest
from cases import for_each

from alm.corpus.document import Document, Dropped
from alm.corpus.formats import Reading, html
from alm.corpus.formats.html import html_text
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

k\t\tv
1\t\t\t\t2
  def f():
      return "<a>"
Search"""


# Of the standard of HTML, old elements too. What stands for a picture or a form, or repeats on every page, is left out.
KEPT = (
    "a abbr acronym address article b bdi bdo big blockquote body center cite code data dd del details dfn dialog dir "
    "div dl dt em fieldset figcaption figure font form h1 h6 hgroup i ins kbd label legend li main map mark marquee "
    "menu meter nobr ol output p pre progress q s samp search section small span strike strong sub summary sup time tt "
    "u ul var x-own"
)


@for_each("name", KEPT.split())
def test_the_text_of_an_element_stays(name: str) -> None:
    page = f"<html><body><p>before</p><{name}>inside</{name}><p>after</p></body></html>"
    assert html_text(page).replace("- ", "").split() == ["before", "inside", "after"]


def test_a_page_reads_as_a_reader_would_read_it() -> None:
    assert html_text(PAGE) == TEXT


@for_each(
    "page, text",
    [
        ("<p class=x'>Hello, it's me.</p><p>Second paragraph.</p>", "Hello, it's me.\n\nSecond paragraph."),
        ('<td width="100""><p>Before "the quote" after.</p>', 'Before "the quote" after.'),
        ("<title>Same</title><h1>Same</h1><p>x", "Same\n\nx"),
        ("<title>Alone\n one</title>", "Alone one"),
        ("1 < 2 & 3 > 2 <3", "1 < 2 & 3 > 2 <3"),
        ("a<nav>b<p>c", "a\nb\n\nc"),  # never closed: it would swallow the rest
        ("a<nav>b<nav>c</nav>d</nav>e", "ae"),
        ("a</button><button>b<p>c", "a\nb\n\nc"),
        ("<object data=x><p>b</p><p>c</p>", "b\n\nc"),
        ("<template><p>b</p><p>c</p>", "b\n\nc"),
        ("<p>a</p><SELECT><option>b<p>c</p>", "a\n\nb\n\nc"),
        ("<iframe src=x /><p>b", "b"),
        ("a<textarea><p>b", "a\n\nb"),
        ("a<canvas>b<div>c", "a\nb\nc"),
        (r"a<script>'<iframe><\/iframe>'</script><iframe>b</iframe><object>c</object><template>d</template>e", "ae"),
        ("<details><summary>a</summary>b</details>", "a\nb"),
        ("<fieldset><legend>a</legend>b</fieldset>c<menu>d</menu>e", "a\nb\nc\nd\ne"),
        ("<form><p>All of a page.</form>", "All of a page."),
        ("<header>Logo</header><article><header><h1>Head</h1></header>x", "Head\n\nx"),
        ("a<!-- b -- c --> d<!---->e<!-->f-->g", "a def-->g"),
        ("a<p title='>'>b<p title=\">\">c", "a\n\nb\n\nc"),
        ("a<SCRIPT>b</script x>c</Script >d<style>e", "acd"),
        ("&copy1 &notit; &amp;lt; &#150; &#99999999999;", "©1 ¬it; &lt; – \ufffd"),
        ("<table><tr><td>a<table><tr><td>b</table><td>c</table>", "a\nb\n\t\tc"),
        ("<pre>a\r\n b<b>c</b></pre></pre>d\n e", "a\n bc\nd e"),
        ("<ul><li>a<ul><li>b</ul><li>c</ul>", "- a\n  - b\n- c"),
        ("", ""),
    ],
)
def test_pages_in_any_state(page: str, text: str) -> None:
    assert html_text(page) == text


@for_each(
    "piece",
    [
        *("<!--", "<a ", "<", "</", "<a '", '<a ">"', "<script>", "<nav>", "&", "<?", "<a =", "<![CDATA["),
        *("<div>", "<header>", "<article><header>", "<b><p>", "<ul><li>", "<table><tr><td>"),
    ],
)
def test_time_grows_with_the_page_and_not_with_its_square(piece: str) -> None:
    html_text(piece * 50_000)  # quadratic, this would take minutes


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


@pytest.mark.parametrize(
    ("label", "data", "text"),
    [
        ("iso-8859-1", b"\x80 \x93x\x94 \x81", "€ “x” \x81"),
        ("ascii", b"\x92", "’"),
        ("windows-1253", b"\x81\xd2a", "\x81\ufffda"),
        ("gb2312", "囧€".encode("gb18030") + b"\x80", "囧€€"),
        ("x-sjis", "①".encode("cp932"), "①"),
        ("euc-kr", "똠".encode("cp949"), "똠"),
        ("big5", "㗎".encode("big5hkscs"), "㗎"),
        ("iso-2022-jp", "日本".encode("iso2022_jp"), "日本"),
        ("utf-16", b"caf\xe9", "caf\ufffd"),
        ("x-user-defined", b"\x80", "€"),
        ("unknown", "é".encode(), "é"),
        ("iso-8859-1", "é".encode(), "é"),  # UTF-8, whatever it says
    ],
)
@pytest.mark.parametrize(
    "form",
    [
        "<meta charset={}>",
        "<META content='text/html; charset={}' http-equiv=Content-Type>",
        '<!-- <meta charset=koi8-r> --><p class=x\'><meta name=x content="charset=koi8-r"><meta  CHARSET = " {} ">',
    ],
)
def test_labels_mean_what_browsers_take_them_for(path: Path, form: str, label: str, data: bytes, text: str) -> None:
    path.write_bytes(b"<!doctype html>" + form.format(label).encode() + data)
    (found,) = html.read(path, (), Reading())
    number = text.count("\ufffd")
    assert found == Document(text, path.as_posix(), is_web=True)
    assert found.lost == ((("replaced_characters", number),) if number else ())


@pytest.mark.parametrize(
    ("rest", "lost"),
    [
        ("<!-- x <p>Hello</p>", "x\n\nHello"),
        ("<style>p {} <p>Hello</p>", "p {}\n\nHello"),
        ("<script src='x'>f() <p>Hello</p>", ""),
        ("<SCRIPT>f() <p>Hello</p>", "f()\n\nHello"),
        ('<p class="b>Hello</p><p>You</p>', "Hello\n\nYou"),
        ("<a title='c'  href = 'b>Hello</a>", "Hello"),
    ],
)
def test_text_inside_markup_without_an_end_is_counted(path: Path, rest: str, lost: str) -> None:
    path.write_text(f"<!doctype html><p>a</p>{rest}")
    (found,) = html.read(path, (), Reading())
    assert isinstance(found, Document)
    assert found.text == "a"
    if lost:
        assert found.lost == (("unclosed_markup", len(lost)),)
    else:
        assert found.lost[0][0] == "unclosed_markup"


@pytest.mark.parametrize(
    "page",
    [
        PAGE,
        "<p>a</p><script>x = '<!--'; y = '<script'</script><p>Hello</p>",
        "<p>a</p><!-- b --><p title='a=\"'>He said \"hi.</p>",
        '<p title="a=">Hello</p>',
        "<p>It is 5' and x = \"y</p>",
        "<p>a</p><!-- ",
        "<p>a</p><!-- b --!><p>c</p>",
    ],
)
def test_nothing_is_counted_where_no_text_is_lost(path: Path, page: str) -> None:
    path.write_text(page)
    (found,) = html.read(path, (), Reading())
    assert isinstance(found, Document)
    assert found.lost == ()


@pytest.mark.parametrize("name", ["audio", "video"])
def test_an_unclosed_player_does_not_hide_the_rest(name: str) -> None:
    assert html_text(f"<p>a</p><{name}><p>b</p>") == "a\n\nb"
    assert html_text(f"<p>a</p><{name}>old browsers</{name}><p>b</p>") == "a\n\nb"


def test_an_encoding_that_browsers_refuse_is_an_error(path: Path) -> None:
    path.write_bytes(b"<meta charset=hz-gb-2312>~{VPND~}")
    with pytest.raises(InputError, match="declares an encoding that browsers refuse"):
        list(html.read(path, (), Reading()))


def test_pages_that_cannot_be_read_are_told_or_counted(path: Path) -> None:
    for label in (b"utf-32", b"utf-7", b"unicode_escape", b"idna", b"punycode", b"cp850"):  # Python has those
        path.write_bytes(b"<meta charset=" + label + b">caf\xe9")
        with pytest.raises(InputError, match="byte 0xE9 at offset"):
            list(html.read(path, (), Reading()))
    path.write_bytes(b"<meta charset=nonsense>caf\xe9")
    with pytest.raises(InputError, match="byte 0xE9 at offset 26"):
        list(html.read(path, (), Reading()))
    (dropped,) = html.read(path, (), Reading(on_bad_input="skip"))
    assert dropped == Dropped("bad_utf8", 27, 1, path.as_posix(), "<meta charset=nonsense>caf\ufffd")
    path.write_bytes(b"x" * 100)
    assert list(html.read(path, (), Reading(max_document_bytes=99))) == [
        Dropped("too_long", 100, 1, path.as_posix(), "x" * 100)
    ]
