"""The split into training and validation text.

Whole documents are split by the hash of the oldest member of their duplicate cluster: duplicates share a split, and a
document's split does not change when others are added. Where that would hold out too few documents for a trustworthy
score, pieces of every long document are held out instead. They follow from the document alone, too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

TRAIN = "train"
VALIDATION = "validation"
SPLITS = (TRAIN, VALIDATION)
DEFAULT_FRACTION = 0.01
_BUCKETS = 1 << 32
# Bits per byte differ from author to author by about a tenth. Their mean over n documents differs by a tenth / sqrt(n)
# from one choice of documents to another: 2% at 20, which is the least difference between models worth seeing.
_FEWEST_HELD_OUT = 20
# About ten rows: with less, a score is mostly chance, and a small text is often seen many times, so that the score
# decides which checkpoint is kept. A tenth is the most that a text should give for it.
_LEAST_HELD_OUT_BYTES, _MOST_RAISED = 8192, 0.1
# A piece is at least a row of a few hundred tokens, so that most of its tokens are predicted with context.
_LEAST_PIECE_BYTES, _MOST_PIECE_BYTES, _WANTED_PIECES = 2048, 4096, 4
LONG_BYTES = 4 * _LEAST_PIECE_BYTES  # shorter documents stay whole: a piece would be too much of them
# Where a document may be cut, the best place first: after a chapter, a paragraph, a line, a sentence, a word.
_BORDERS = tuple(
    map(re.compile, (r"\n(?:[ \t]*\r?\n){2,}", r"\n(?:[ \t]*\r?\n)+", r"\n", r"[.!?…][\"'”’)\]]*\s+|[。！？]+", r"\s+"))
)


def split_of(cluster: str, validation_fraction: float) -> str:
    """Return the split of a duplicate cluster: `validation` for `validation_fraction` of all hashes."""
    return VALIDATION if _bucket(f"split {cluster}") < validation_fraction * _BUCKETS else TRAIN


def _bucket(label: str) -> int:
    # Hashed again, so that choosing by split is independent of any other use of the hash's first bits.
    return int.from_bytes(hashlib.sha256(label.encode()).digest()[:4], "big")


def is_few(total: float, squares: float, validation_fraction: float) -> bool:
    """Whether a choice by hash would hold out too few documents.

    Their sizes add up to `total`, the squares of these to `squares`. A document counts by its share of the text:
    total^2 / squares is the number of equal documents that would vary as much (Kish's effective sample size), so one
    book among many notes makes few of them.
    """
    return 0 < total * total * validation_fraction < _FEWEST_HELD_OUT * squares


def raised(validation_fraction: float, total: int) -> float:
    """Return the share to hold out of a few documents of `total` bytes: by default more of a small text."""
    if validation_fraction != DEFAULT_FRACTION or not total:
        return validation_fraction
    return max(validation_fraction, min(_MOST_RAISED, _LEAST_HELD_OUT_BYTES / total))


def share_of_hashes(documents: Iterable[tuple[str, int]], share: float) -> float:
    """Return the share of all hashes that selects about `share` of the bytes of these documents (cluster, size).

    By the share of hashes alone, three or none of ten documents could be selected where one is wanted.
    """
    ordered = sorted((_bucket(f"split {cluster}"), size) for cluster, size in documents)
    wanted, chosen, selected = share * sum(size for _, size in ordered), 0, 0
    for bucket, size in ordered:
        if chosen + size / 2 > wanted:
            break
        chosen, selected = chosen + size, bucket + 1
    return selected / _BUCKETS


def piece_count(size: int, cluster: str, validation_fraction: float) -> int:
    """Return how many pieces to hold out of a document of `size` bytes: about its share, rounded up or down by hash."""
    if size < LONG_BYTES:
        return 0
    return int(
        validation_fraction * size / _piece_bytes(size, validation_fraction) + _bucket(f"count {cluster}") / _BUCKETS
    )


def _piece_bytes(size: int, validation_fraction: float) -> float:
    return min(max(validation_fraction * size / _WANTED_PIECES, _LEAST_PIECE_BYTES), _MOST_PIECE_BYTES)


def in_pieces(text: str, cluster: str, validation_fraction: float) -> list[tuple[str, str]]:
    """Cut a long `text` into parts with their splits. The parts add up to `text`; at least one piece is held out.

    The held-out pieces lie at equal distances, each a few kB between borders of chapters or paragraphs, or else of
    lines, sentences or words.
    """
    size = len(text.encode("utf-8"))
    count = max(1, piece_count(size, cluster, validation_fraction))
    length = min(_piece_bytes(size, validation_fraction) / size * len(text), len(text) / (2 * count))
    gap = len(text) / count - length
    reach = min(length, gap) / 4  # so little that pieces and the text between them keep at least half of their length
    # Neither the first nor the last words of a text: these are titles and notes, unlike the rest.
    before = gap * (1 + _bucket(f"place {cluster}") / _BUCKETS) / 3
    parts: list[tuple[str, str]] = []
    end = 0
    for number in range(count):
        target = number * (length + gap) + before
        start, last = _border(text, target, reach), end
        end = _border(text, target + length, reach)
        parts += [(text[last:start], TRAIN), (text[start:end], VALIDATION)]
    return _joined([*parts, (text[end:], TRAIN)])


def _border(text: str, target: float, reach: float) -> int:
    """Return the best place to cut `text` within `reach` characters of `target`."""
    for border in _BORDERS:
        found = [match.end() for match in border.finditer(text, int(target - reach), int(target + reach))]
        if found:
            return min(found, key=lambda at: abs(at - target))
    return int(target)


def _joined(parts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join a blank part to its neighbour, and neighbours of one split."""
    joined: list[tuple[str, str]] = []
    for text, name in parts:
        if joined and (not text.strip() or not joined[-1][0].strip() or joined[-1][1] == name):
            before, of = joined.pop()
            joined.append((before + text, of if before.strip() else name))
        else:
            joined.append((text, name))
    return joined


def cut(text: str, validation_fraction: float) -> tuple[str, str] | None:
    """Cut a short `text` at the last line break before its final `validation_fraction`; None if there is none."""
    target = int(len(text) * (1.0 - validation_fraction))
    paragraph = text.rfind("\n\n", 0, target)
    line = text.rfind("\n", 0, target)
    # Prefer the end of a paragraph, unless that holds out more than twice the requested share.
    near = paragraph >= len(text) * (1.0 - 2 * validation_fraction)
    at = paragraph + 2 if near else line + 1
    head, tail = text[:at], text[at:]
    return (head, tail) if head.strip() and tail.strip() else None
