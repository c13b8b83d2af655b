"""Detection of a file's format: by its name, or by its beginning if that is more certain; None if it is not text."""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType

from alm import kinds
from alm.corpus.formats._encoding import AUTO, begin_of_text, of_head
from alm.errors import InputError
from alm.files import open_binary, suffix

_PACKAGE = "alm.corpus.formats"
_HEAD_BYTES = 1 << 16
_PLAIN = frozenset({"", ".txt", ".text", ".data", ".dat"})  # suffixes that say nothing about the form of the text
_BINARY = (b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"PK\x03\x04", b"\x7fELF", b"%PDF-", b"{\\rtf", b"BZh", b"7z\xbc\xaf")
_MOST_NULS = 0.1  # maximum share of NUL characters in a file whose name says that it is text


@functools.cache
def module(name: str) -> ModuleType:
    """Return the module of a format."""
    return kinds.load(_PACKAGE, name)


@functools.cache
def by_suffix() -> dict[str, str]:
    """Return the format of each suffix."""
    return {end: name for name in kinds.names(_PACKAGE) for end in module(name).SUFFIXES}


def format_of(path: Path, *, asked: str, encoding: str, is_named: bool) -> str | None:
    """Return the format to read `path` in; None if it is not text, or not in the format `asked`.

    A named file has the format `asked`. A file found in a folder or by a glob must have that format by its name or
    its beginning. For a file that cannot be opened, the name decides: reading it will raise the error.
    """
    named = by_suffix().get(suffix(path))
    head = _head(path)
    if head is None:
        return named or "text" if asked == AUTO else asked
    guessed = _guess(head, named, encoding)
    if asked in (AUTO, guessed):
        return guessed
    if is_named:
        return asked if guessed or asked == "parquet" else None
    if asked == "text":
        return "text" if guessed not in (None, "parquet") else None
    is_plain = named is None or suffix(path) in _PLAIN
    may_fit = guessed == "text" and is_plain and module(asked).fits(_as_utf8(head, encoding)) is not False
    return asked if may_fit or (guessed and asked == named) else None


def _head(path: Path) -> bytes | None:
    try:
        with open_binary(path) as file:
            return file.read(_HEAD_BYTES)
    except (InputError, OSError):
        return None


def _guess(head: bytes, named: str | None, encoding: str) -> str | None:
    """Return the format of a file that begins with `head`, and whose name suggests `named`."""
    if named == "parquet" or module("parquet").fits(head):
        return "parquet"
    if _is_binary(head, named, encoding):
        return None
    if named not in (None, "json", "jsonl"):
        return named
    probe = _as_utf8(head, encoding)
    if named:
        # Whichever it is named: `.jsonl` from many tools is an array, or objects over several lines.
        is_lines = module("jsonl").fits(probe) or (named == "jsonl" and not module("json").spans_lines(probe))
        return "jsonl" if is_lines else "json"
    return next((name for name in kinds.names(_PACKAGE) if module(name).fits(probe)), "text")


def _is_binary(head: bytes, named: str | None, encoding: str) -> bool:
    if head.startswith(_BINARY):
        return True
    text = _text(head, encoding)
    if text is None:  # perhaps in another encoding, or damaged: reading it will raise an error with the place
        return named is None or (b"\0" in head and of_head(head, encoding) == "utf-8")
    return text.count("\0") > (_MOST_NULS * len(text) if named else 0)


def _text(head: bytes, encoding: str) -> str | None:
    return begin_of_text(head, encoding, is_all=len(head) < _HEAD_BYTES)


def _as_utf8(head: bytes, encoding: str) -> bytes:
    text = _text(head, encoding)
    return head if text is None else text.encode("utf-8", "replace")
