"""What a source yields: documents, and what it had to leave out, so that every byte is counted."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """One text. `origin` says where it came from and is unique within its source.

    `is_web` marks raw web pages: where a source leaves the choice of filters open, these get all of them.
    """

    text: str
    origin: str
    is_web: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """`bytes` that a source read and left out; `documents` of them were whole documents.

    `origin` and `excerpt` are there to be shown as an example, where there is something to show.
    """

    reason: str
    bytes: int
    documents: int = 0
    origin: str = ""
    excerpt: str = ""


Item = Document | Dropped
Items = Generator[Item, None, None]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a source's input that can be read on its own: a file, a range of one, some row groups.

    `name` is the file's path, or what the source calls it; `bytes` is its size where it lies. `where`
    says which piece it is, in numbers that only the source's kind understands; empty means the whole.
    """

    name: str
    bytes: int
    where: tuple[int, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What a source has to read, in order, found without reading it."""

    parts: tuple[Part, ...]
    revision: str | None = None
    licence: str | None = None


def utf8_bytes(text: str) -> int:
    """Length of `text` in UTF-8; a lone surrogate, which UTF-8 cannot hold, counts as three bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
