"""Decoding of web pages as browsers do it: by the labels and the prescan of the WHATWG standards."""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from alm.corpus.formats._encoding import is_known
from alm.errors import InputError

if TYPE_CHECKING:
    from webencodings import Encoding

REPLACEMENT = "\ufffd"
_HEAD_BYTES = 4096  # browsers scan 1,024 bytes before they parse, but also follow a declaration that comes later
_XML = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([^"'>]+)""")
_TAG = re.compile(rb"</?([a-zA-Z][^\s/>]*)")
_ATTRIBUTE = re.compile(rb"""[\s/]*+([^\s/>][^\s/>=]*+)(?:\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s>"'][^\s>]*+)))?""")
_CHARSET = re.compile(rb"""charset\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s;"']+))""", re.IGNORECASE)
# A page that says this of itself within ASCII is read as the standard says.
_CORRECTED = {"utf-16le": "utf-8", "utf-16be": "utf-8", "x-user-defined": "windows-1252", "gbk": "gb18030"}
# Text in these encodings is ASCII byte for byte, so it looks like UTF-8.
_SEVEN_BIT = ("iso-2022-jp", "replacement")


def decode_declared(data: bytes) -> str | None:
    """Decode a page with the encoding that it declares, with U+FFFD for what cannot be decoded.

    Return None if it is UTF-8 or declares no known encoding. Raises `InputError` for an encoding that browsers refuse.
    """
    encoding = _declared(data[:_HEAD_BYTES])
    if encoding is None or (_is_utf8(data) and not (encoding.name in _SEVEN_BIT and data.isascii())):
        return None
    if encoding.name == "replacement":
        raise InputError("it declares an encoding that browsers refuse to read, because pages could hide scripts in it")
    text: str = encoding.codec_info.decode(data, "alm-web")[0]
    return text


def _declared(head: bytes) -> Encoding | None:
    from webencodings import lookup

    for label in map(bytes.decode, _labels(head), itertools.repeat("latin-1")):
        encoding = lookup(label)
        if encoding is None and is_known(label):  # Python's name of an encoding of the web: `latin-1`
            encoding = lookup(codecs.lookup(label).name)
        if encoding is not None:
            return lookup(_CORRECTED.get(encoding.name, encoding.name)) or encoding
    return None


def _labels(head: bytes) -> Iterator[bytes]:
    """Yield the labels that the beginning of a page declares."""
    if found := _XML.match(head):
        yield found[1]
    at = 0
    while (at := head.find(b"<", at)) >= 0:
        if head.startswith(b"<!--", at):
            end = head.find(b"-->", at + 2)
            at = len(head) if end < 0 else end + 3
        elif (tag := _TAG.match(head, at)) is None:
            at += 1
        else:
            at, attributes = _attributes(head, tag.end())
            if tag[0].lower() == b"<meta":
                yield from _labels_of(attributes)


def _attributes(head: bytes, at: int) -> tuple[int, dict[bytes, bytes]]:
    """Return the end of the tag whose attributes begin at `at`, and the attributes; the first of equal names counts."""
    attributes: dict[bytes, bytes] = {}
    while found := _ATTRIBUTE.match(head, at):
        attributes.setdefault(found[1].lower(), found[2] or found[3] or found[4] or b"")
        at = found.end()
    return at, attributes


def _labels_of(attributes: dict[bytes, bytes]) -> Iterator[bytes]:
    if label := attributes.get(b"charset"):
        yield label
    elif attributes.get(b"http-equiv", b"").lower() == b"content-type":
        found = _CHARSET.search(attributes.get(b"content", b""))
        if found and (label := found[1] or found[2] or found[3]):
            yield label


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Return a C1 control for a byte that windows-125x leaves undefined, the euro sign of GBK, U+FFFD for others."""
    assert isinstance(error, UnicodeDecodeError)
    start, byte = error.start, error.object[error.start]
    if error.encoding == "charmap" and 0x80 <= byte <= 0x9F:
        return chr(byte), start + 1
    if error.encoding == "gb18030" and byte == 0x80:
        return "€", start + 1
    # ASCII after the first byte of a pair is text of its own.
    end = next((n for n in range(start + 1, error.end) if error.object[n] < 0x80), error.end)
    return REPLACEMENT, end


codecs.register_error("alm-web", _replace)
