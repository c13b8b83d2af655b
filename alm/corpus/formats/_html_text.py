"""Extraction of the visible text of a web page, line by line.

We have our own scanner for tags, because `html.parser` takes quadratic time on a page with many unterminated comments
(minutes for a few hundred kilobytes), and because we need no attributes. Time here grows linearly with the page.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html import unescape

# Elements that are not text of the page, or that are the same on every page of a site.
_LEFT_OUT = frozenset(
    {"template", "noscript", "nav", "header", "footer", "aside", "form", "button", "select"}
    | {"svg", "math", "iframe", "object", "canvas"}
)
# Elements with a blank line before and after.
_PARAGRAPHS = frozenset(
    {"p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "ul", "ol", "dl", "table", "figure", "section"}
    | {"article", "main", "hr", "address", "details"}
)
_LINES = frozenset(
    {"div", "li", "dt", "dd", "tr", "br", "body", "html", "center", "caption", "figcaption", "summary", "fieldset"}
)
_BLOCKS = _PARAGRAPHS | _LINES
_VOID = frozenset({"br", "hr"})
_SPACE = re.compile(r"[ \t\n\r\f]+")
_BULLET = "- "

_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)")
_TAG_END = re.compile(r"""(?:[^>"']++|"[^"]*+"|'[^']*+')*+>""")
_RAW_END = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in ("script", "style")}
# An unclosed quote makes `_TAG_END` scan to the end of the page. After this many failures quotes are ignored, so that
# time stays linear.
_STRIKES = 8


def html_text(page: str) -> str:
    """Return the text of `page`, after its title unless that is a line of the text."""
    reader = _Reader(_LEFT_OUT)
    reader.read(page)
    if reader.unclosed:
        # An unclosed element would swallow the rest of the page: read again without leaving it out.
        reader = _Reader(_LEFT_OUT - reader.unclosed)
        reader.read(page)
    body, title = reader.text(), _SPACE.sub(" ", "".join(reader.title)).strip()
    if not title or title in body.split("\n"):
        return body
    return f"{title}\n\n{body}" if body else title


def _tokens(page: str) -> Iterator[tuple[str, str]]:
    """Yield the tokens of the page: (`text`, characters), (`open`, name), (`close`, name) and (`void`, name)."""
    position = 0
    ends = _Ends(page)
    while (found := page.find("<", position)) >= 0:
        tag = _TAG.match(page, found)
        end = ends.of_tag(tag.end()) if tag else ends.of_markup(found)
        if end < 0:  # not markup: a lone `<`
            yield "text", page[position : found + 1]
            position = found + 1
            continue
        yield "text", page[position:found]
        position = end
        if tag is None:
            continue
        name = tag[2].lower()
        if name in _RAW_END:
            closing = None if tag[1] else _RAW_END[name].search(page, end)
            position = end if tag[1] else closing.start() if closing else len(page)
        elif tag[1]:
            yield "close", name
        else:
            yield ("void" if page[end - 2] == "/" or name in _VOID else "open"), name
    yield "text", page[position:]


class _Ends:
    """Finds the ends of markup. It remembers failed searches, so that it does not repeat them: time stays linear."""

    def __init__(self, page: str) -> None:
        self._page = page
        self._strikes = _STRIKES
        self._has_more = {"-->": True, ">": True}

    def of_tag(self, start: int) -> int:
        """Return the position after the `>` that ends a tag, ignoring `>` in quotes; -1 if there is none."""
        if self._strikes:
            if found := _TAG_END.match(self._page, start):
                return found.end()
            self._strikes -= 1
        return self._behind(">", start)

    def of_markup(self, start: int) -> int:
        """Return the position after a comment, declaration or instruction that begins at `start`; -1 if none does."""
        if self._page.startswith("<!--", start):
            end = self._behind("-->", start + 2)
            if end >= 0:
                return end
        return self._behind(">", start) if self._page.startswith(("<!", "<?"), start) else -1

    def _behind(self, mark: str, start: int) -> int:
        found = self._page.find(mark, start) if self._has_more[mark] else -1
        self._has_more[mark] = found >= 0
        return found + len(mark) if found >= 0 else -1


def _resolved(text: str) -> str:
    """Resolve the entities of `text`."""
    if "&" not in text:
        return text
    try:
        return unescape(text)
    except ValueError:  # a character number with more digits than Python parses
        return text


class _Reader:
    """Turns tokens into lines."""

    def __init__(self, left_out: frozenset[str]) -> None:
        self._left_out = left_out
        self._open: Counter[str] = Counter()
        self._depth = 0  # number of open elements that are left out
        self._lines: list[str] = []
        self._line: list[str] = []
        self._ends_in_space = True  # also at the beginning of a line
        self._pre = 0
        self._in_title = False
        self.title: list[str] = []

    def read(self, page: str) -> None:
        """Read all of `page`."""
        for kind, value in _tokens(page):
            if kind == "text":
                if value and not self._depth:
                    self._text(_resolved(value))
            elif value in self._left_out:
                self._enter_or_leave(kind, value)
            elif not self._depth:
                self._tag(kind, value)
        self._end_line()

    @property
    def unclosed(self) -> frozenset[str]:
        """The left-out elements that were never closed."""
        return frozenset(+self._open)

    def text(self) -> str:
        """Return the lines, with at most one blank line in a row."""
        return re.sub(r"\n{3,}", "\n\n", "\n".join(self._lines)).strip("\n")

    def _enter_or_leave(self, kind: str, name: str) -> None:
        if kind == "open":
            self._open[name] += 1
            self._depth += 1
        elif kind == "close" and self._open[name]:
            self._open[name] -= 1
            self._depth -= 1

    def _tag(self, kind: str, name: str) -> None:
        if name == "title":
            self._in_title = kind == "open" and not self.title
        elif name in _BLOCKS:
            self._in_title = False
            self._break(name)
            if name == "pre":
                self._pre = max(0, self._pre + {"open": 1, "close": -1}.get(kind, 0))
            elif name == "li" and kind == "open":
                self._add(_BULLET)
        elif name in ("td", "th") and kind == "open" and self._line:
            self._line.append("\t")
            self._ends_in_space = True

    def _text(self, text: str) -> None:
        if self._in_title:
            self.title.append(text)
        elif self._pre:
            first, *others = text.replace("\r\n", "\n").split("\n")
            self._add(first)
            for line in others:
                self._end_line()
                self._add(line)
        else:
            spaced = _SPACE.sub(" ", text)
            self._add(spaced[1:] if self._ends_in_space and spaced.startswith(" ") else spaced)

    def _add(self, text: str) -> None:
        if text:
            self._line.append(text)
            self._ends_in_space = text.endswith(" ")

    def _break(self, name: str) -> None:
        """End the current line, if there is one. A bullet alone does not count as a line."""
        if self._line == [_BULLET]:
            return
        if self._line or name == "br":
            self._end_line()
        if name in _PARAGRAPHS:
            self._lines.append("")

    def _end_line(self) -> None:
        line = "".join(self._line)
        self._lines.append(line if self._pre else line.strip(" "))
        self._line = []
        self._ends_in_space = True
