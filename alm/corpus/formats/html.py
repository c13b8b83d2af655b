"""Kind `html`: web pages; the text is extracted, without the navigation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from alm.artifacts import as_text
from alm.corpus.document import Document, Dropped, Part
from alm.corpus.formats import Reading, whole
from alm.corpus.formats._encoding import AUTO, bad_utf8, is_known, of_head
from alm.corpus.formats._html_text import html_text
from alm.corpus.formats._lines import excerpt, too_long
from alm.corpus.rows import left_out
from alm.errors import InputError
from alm.files import chunks, open_binary

SUFFIXES = frozenset({".html", ".htm", ".xhtml"})
HAS_ROWS = False

_BEGINNING = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE | re.DOTALL
)
_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]+)", re.IGNORECASE)
_CHARSET_BYTES = 4096


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
        text = html_text(_decoded(data, path, reading.encoding))
    except InputError as error:
        dropped = Dropped("bad_utf8", len(data), documents=1, origin=as_text(path), excerpt=excerpt(data))
        yield left_out(dropped, error, on_bad_input=reading.on_bad_input)
        return
    yield Document(text, as_text(path), is_web=True)


def _decoded(data: bytes, path: Path, encoding: str) -> str:
    """Decode the page; the encoding that it declares is used only if it is not UTF-8."""
    name = of_head(data, encoding)
    try:
        return data.decode(name)
    except UnicodeDecodeError as error:
        declared = _CHARSET.search(data, 0, _CHARSET_BYTES)
        if encoding == AUTO and declared is not None and is_known(said := declared[1].decode()):
            return data.decode(said, "replace")
        if name != "utf-8":
            raise InputError(f"`{path}` is not {name}: {error.reason} at offset {error.start:,}") from error
        raise bad_utf8(path, error, offset=0) from error
