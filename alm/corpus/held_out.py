"""Held-out text in words: how much it is, and what a score of it measures."""

from __future__ import annotations

from collections.abc import Iterable

from alm import formatting
from alm.artifacts import HeldOut


def total(parts: Iterable[HeldOut]) -> HeldOut:
    """Add up the held-out text of several sources."""
    every = list(parts)
    return HeldOut(
        documents=sum(part.documents for part in every),
        pieces=sum(part.pieces for part in every),
        cut_documents=sum(part.cut_documents for part in every),
        bytes=None if any(part.bytes is None for part in every) else sum(part.bytes or 0 for part in every),
    )


def in_words(held_out: HeldOut) -> str:
    """Describe held-out text.

    >>> in_words(HeldOut(pieces=28, cut_documents=5, bytes=100_906))
    '28 pieces of 5 documents, 100.9 kB: new passages of the same texts'
    >>> in_words(HeldOut(documents=12, bytes=80_100))
    '12 documents, 80.1 kB: texts that the model has not seen'
    """
    whole = (_counted(held_out.documents, "document"), "texts that the model has not seen")
    cut = f"{_counted(held_out.pieces, 'piece')} of {_counted(held_out.cut_documents, 'document')}"
    found = [(cut, "new passages of the same texts")] if held_out.pieces else []
    found += [whole] if held_out.documents else []
    size = "" if held_out.bytes is None else f", {formatting.size(held_out.bytes)}"
    what, means = (", and ".join(words) for words in zip(*found, strict=True)) if found else ("", "")
    return f"{what}{size}: {means}" if found else "nothing"


def _counted(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
