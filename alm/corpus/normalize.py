"""Normalisation of one text, without changing its meaning.

NFC, never NFKC (which turns `10²` into `102`); newlines become `\\n`; control characters are removed; newlines,
tabs and indentation stay. Each step's change in size is counted, so bytes add up.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from alm.corpus.document import utf8_bytes

BYTE_ORDER_MARK = "\ufeff"
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Carriage returns, and other characters that end a line: vertical tab, form feed, next line, and the separators of
# files, groups and records. That of units is a tab. Without them, the words around them would become one.
_LINE_END = re.compile(r"\r\n|[\r\x0b\x0c\x1c-\x1e\x85]")
_UNIT_SEPARATOR = "\x1f"
# C0 and C1 without tab and newline, and DEL.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


# The same, and the byte order mark, in UTF-8: searching bytes is ten times as fast as searching characters.
_SUSPECT_ASCII = bytes(code for code in (*range(0x20), 0x7F) if code not in b"\t\n")
_C1 = re.compile(rb"\xc2[\x80-\x9f]")
_SURROGATE_LEAD = re.compile(rb"\xed[\xa0-\xbf]")
_BOM = BYTE_ORDER_MARK.encode()


@dataclass(frozen=True, slots=True)
class Normalized:
    """A clean text, its UTF-8, its size before, and the signed change in bytes of each step that changed it."""

    text: str
    data: bytes
    bytes_before: int
    changes: dict[str, int]


def normalize(text: str) -> Normalized:
    """Clean `text`. The result can be encoded as UTF-8, and cleaning it again changes nothing."""
    data = text.encode("utf-8", "surrogatepass")
    if _is_clean(text, data):
        return Normalized(text, data, len(data), {})
    changes: dict[str, int] = {}
    before = len(data)
    for name, step in _STEPS:
        after = step(text)
        if after is not text and after != text:
            changes[name] = utf8_bytes(after) - utf8_bytes(text)
            text = after
    return Normalized(text, text.encode("utf-8"), before, changes)


def _is_clean(text: str, data: bytes) -> bool:
    """Whether no step would change the text."""
    if len(data.translate(None, _SUSPECT_ASCII)) != len(data):
        return False
    if len(text) == len(data):  # ASCII, which is always in NFC
        return True
    surrogate = b"\xed" in data and _SURROGATE_LEAD.search(data)
    if surrogate or _BOM in data or (b"\xc2" in data and _C1.search(data)):
        return False
    return unicodedata.is_normalized("NFC", text)


def _without_byte_order_mark(text: str) -> str:
    return text.lstrip(BYTE_ORDER_MARK)


def with_newlines(text: str) -> str:
    """Return `text` with a newline for each carriage return, alone or before a newline, as `normalize` does."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _unified_line_ends(text: str) -> str:
    return _LINE_END.sub("\n", text) if _LINE_END.search(text) else text


def _without_surrogates(text: str) -> str:
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def _without_controls(text: str) -> str:
    return _CONTROL.sub("", text.replace(_UNIT_SEPARATOR, "\t")) if _CONTROL.search(text) else text


def _composed(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


# Remove controls before composing: a control between a letter and its accent would keep them apart.
_STEPS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("line_ends", _unified_line_ends),
    ("surrogates", _without_surrogates),
    ("controls", _without_controls),
    ("byte_order_mark", _without_byte_order_mark),
    ("nfc", _composed),
)
