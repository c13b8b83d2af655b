"""What a source yields: documents, and what it had to leave out, so that every byte is counted."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One text. `origin` says where it came from and is unique within its source."""

    text: str
    origin: str


@dataclass(frozen=True)
class Dropped:
    """`bytes` of UTF-8 that a source read and left out; `documents` of them were whole documents."""

    reason: str
    bytes: int
    documents: int = 0


Item = Document | Dropped


@dataclass(frozen=True)
class Source:
    """An opened source: what is known of it, and its items, read once."""

    items: Generator[Item, None, None]
    revision: str | None = None
    licence: str | None = None


def utf8_bytes(text: str) -> int:
    """Length of `text` in UTF-8; a lone surrogate, which UTF-8 cannot hold, counts as three bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
