"""Kind `html`: web pages. Resiliparse parses them and extracts the text; navigation is left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from alm.artifacts import as_text
from alm.corpus.document import REPLACED, UNCLOSED, Document, Dropped, Part
from alm.corpus.formats import Reading, whole
from alm.corpus.formats._encoding import AUTO, EncodingError, bad_utf8, of_data
from alm.corpus.formats._lines import excerpt, too_long
from alm.corpus.formats._web_encoding import REPLACEMENT, decode_declared
from alm.corpus.rows import left_out
from alm.errors import InputError, shell
from alm.files import chunks, open_binary

SUFFIXES = frozenset({".html", ".htm", ".xhtml"})
HAS_ROWS = False

_BEGINNING = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE | re.DOTALL
)
# Elements that are not text of the page, or that are the same on every page of a site. No selector looks further than
# at a parent, so that the time for deeply nested elements stays linear.
_LEFT_OUT = (
    *("nav", "aside", "footer", "button", "select", "textarea", "noscript"),
    *("object", "iframe", "canvas", "template"),
)
_CONTAINERS = (*_LEFT_OUT, "header", "audio", "video")
_SELECTORS = (
    *_LEFT_OUT,
    "header:not(article > header, main > header, section > header)",  # those hold the title
    *("svg", "math", "[hidden]", "[aria-hidden=true]", "[role=navigation]"),
    *("[role=banner]", "[role=contentinfo]", "[role=complementary]", "[role=search]"),
)
# Resiliparse takes these for words of a line, or, as for figures and labels, leaves them out.
_BLOCKS = ("dialog", "dir", "figcaption", "figure", "label", "legend", "menu", "search", "summary")
_TAG = re.compile(rf"<((?:\\?/)?)({'|'.join((*_CONTAINERS, *_BLOCKS, 'option'))})(?=[\s/>])", re.IGNORECASE)
# What takes everything up to its end; without one, the rest of the page.
_RAW = (("<!--", "-->"), ("<script", "</script"), ("<style", "</style"))
_OPEN_QUOTE = re.compile(r"<[a-zA-Z][^<>]*=\s*")
_BULLET = re.compile(r"^  ( *)• ", re.MULTILINE)


def fits(head: bytes) -> bool:
    """Whether the file begins like a web page."""
    return _BEGINNING.match(head.removeprefix(b"\xef\xbb\xbf")) is not None


def parts(path: Path, reading: Reading, *, part_bytes: int) -> list[Part]:
    """Return the complete page."""
    return whole(path)


def read(path: Path, where: tuple[int, ...], reading: Reading) -> Iterator[Document | Dropped]:
    """Yield the text of the page. Bytes of markup are not counted."""
    with open_binary(path) as file:
        data = file.read(reading.max_document_bytes + 1)
        rest = sum(map(len, chunks(file)))
    if len(data) + rest > reading.max_document_bytes:
        yield too_long(len(data) + rest, origin=as_text(path), beginning=data)
        return
    try:
        page, replaced = _decoded(data, path, reading.encoding)
    except InputError as error:
        dropped = Dropped("bad_utf8", len(data), documents=1, origin=as_text(path), excerpt=excerpt(data))
        yield left_out(dropped, error, on_bad_input=reading.on_bad_input)
        return
    text = html_text(page)
    lost = ((REPLACED, replaced), (UNCLOSED, _unclosed(page, text)))
    yield Document(text, as_text(path), is_web=True, lost=tuple(each for each in lost if each[1]))


def html_text(page: str) -> str:
    """Return the text of `page`, after its title unless that is a line of the text."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(_with_blocks(page))
    body = extract_plain_text(tree, preserve_formatting=True, alt_texts=False, skip_elements=_SELECTORS).strip("\n")
    body, title = _BULLET.sub(r"\1- ", body), " ".join((tree.title or "").split())
    if not title or title in body.split("\n"):
        return body
    return f"{title}\n\n{body}" if body else title


def _unclosed(page: str, text: str) -> int:
    """Count the characters of text that a comment, script, style or quote without an end takes, as in browsers."""
    lower = page.lower()
    rests = []
    for begin, end in _RAW:
        at = lower.rfind(begin)
        if at >= 0 and end not in lower[at:]:
            rests.append(page[at + len(begin) :].lstrip("> \n"))
    for quote in "\"'":
        at = page.rfind(quote)
        tag = page[max(page.rfind("<", 0, at), 0) : at] if at > 0 else ""
        if _OPEN_QUOTE.fullmatch(tag) and tag.count(quote) % 2 == 0:
            rests.append(page[at + 1 :].partition(">")[2])
    lost = html_text(max(rests, key=len)) if rests else ""
    return 0 if lost.rpartition("\n")[2] in text else len(lost)


def _with_blocks(page: str) -> str:
    """Replace elements by `div`: other blocks, and unclosed containers, which would swallow the rest of the page."""
    depth: Counter[str] = Counter()
    for slash, name in _TAG.findall(page):
        depth[name.lower()] = max(0, depth[name.lower()] + (-1 if slash else 1))
    names = {*_BLOCKS, *(name for name in _CONTAINERS if depth[name])}
    if "select" in names:
        names.add("option")
    return _TAG.sub(lambda tag: f"<{tag[1]}div" if tag[2].lower() in names else tag[0], page)


def _decoded(data: bytes, path: Path, encoding: str) -> tuple[str, int]:
    """Decode the page, and count the characters that were replaced.

    The encoding that it declares is used only if it is not UTF-8.
    """
    name = of_data(data, encoding)
    try:
        declared = decode_declared(data) if encoding == AUTO and name == "utf-8" else None
        return (data.decode(name), 0) if declared is None else (declared, declared.count(REPLACEMENT))
    except UnicodeDecodeError as error:
        if name != "utf-8":
            raise EncodingError(
                f"`{path}` is not {name}: {error.reason} at offset {error.start:,}",
                hint="set its encoding: `--set sources.<name>.encoding=...`",
            ) from error
        raise bad_utf8(path, error, offset=0) from error
    except InputError as error:
        raise EncodingError(f"`{path}` is not text: {error.message}", hint=f"run `{shell('file', path)}`") from error
