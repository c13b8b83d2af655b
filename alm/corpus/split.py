"""Which documents are held out: by hash of the text, decided once and written with each document.

Exact duplicates share a cluster and so a split, and a document's split does not change when other
documents are added. A source whose hashes would hold out nothing holds out one document, or the end of
one, all the same: "is it going well?" needs an answer for a shelf of twelve novels too. That choice is
made by size, so it can change when such a source grows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

TRAIN = "train"
VALIDATION = "validation"
SPLITS = (TRAIN, VALIDATION)
_HELD_BACK_BYTES = 1 << 28
_BUCKETS = 1 << 32
_FAR_FROM_SHARE = 10


@dataclass(frozen=True)
class SplitDocument:
    """A clean document with its identity. `bytes` counts UTF-8."""

    text: str
    origin: str
    sha256: str
    split: str
    bytes: int

    @property
    def cluster(self) -> str:
        """What its duplicates share: the hash of the text."""
        return self.sha256


def assign(text: str, *, origin: str, validation_fraction: float) -> SplitDocument:
    """`text` with its hash, and the split that the hash decides."""
    data = text.encode("utf-8")
    digest = hashlib.sha256(data).hexdigest()
    return SplitDocument(text, origin, digest, split_of(digest, validation_fraction), len(data))


def split_of(cluster: str, validation_fraction: float) -> str:
    """The split of a duplicate cluster: `validation` for `validation_fraction` of all hashes."""
    # Hashed again, so that choosing by split is independent of any other use of the hash's first bits.
    bucket = int.from_bytes(hashlib.sha256(f"split {cluster}".encode()).digest()[:4], "big")
    return VALIDATION if bucket < validation_fraction * _BUCKETS else TRAIN


def with_validation(documents: Iterable[SplitDocument], *, validation_fraction: float) -> Iterator[SplitDocument]:
    """The same documents in order, at least one held out when there are two or more.

    Documents are held back until the first held-out one comes by. If none does, the one whose size is
    nearest to its share of all bytes is held out, together with its duplicates. A single document is cut
    in two at a line near the end, and so is the largest where all are far from the share.
    """
    if not validation_fraction:
        yield from documents
        return
    held: list[SplitDocument] = []
    size = 0
    stream = iter(documents)
    for document in stream:
        held.append(document)
        size += document.bytes
        if document.split == VALIDATION or size > _HELD_BACK_BYTES:
            break
    if not any(document.split == VALIDATION for document in held):
        held = _held_out(held, validation_fraction)
    yield from held
    chosen = {document.cluster for document in held if document.split == VALIDATION}
    for document in stream:  # a later duplicate of what was held out by size follows it
        yield replace(document, split=VALIDATION) if document.cluster in chosen else document


def _held_out(documents: list[SplitDocument], validation_fraction: float) -> list[SplitDocument]:
    if len({document.cluster for document in documents}) < 2:
        return _cut(documents[0], validation_fraction) if len(documents) == 1 else documents
    wanted = validation_fraction * sum(document.bytes for document in documents)
    nearest = min(documents, key=lambda document: (abs(math.log(document.bytes / wanted)), document.sha256))
    if 1 / _FAR_FROM_SHARE <= nearest.bytes / wanted <= _FAR_FROM_SHARE:
        return [replace(d, split=VALIDATION) if d.cluster == nearest.cluster else d for d in documents]
    largest = max(range(len(documents)), key=lambda number: documents[number].bytes)
    part = _cut(documents[largest], min(0.5, wanted / documents[largest].bytes))
    return [*documents[:largest], *part, *documents[largest + 1 :]]


def _cut(document: SplitDocument, validation_fraction: float) -> list[SplitDocument]:
    """The document as two: the line break nearest before its last `validation_fraction` parts them."""
    target = int(len(document.text) * (1.0 - validation_fraction))
    paragraph = document.text.rfind("\n\n", 0, target)
    line = document.text.rfind("\n", 0, target)
    # A paragraph end is the better place, if it does not hold out twice what was asked for.
    near = paragraph >= len(document.text) * (1.0 - 2 * validation_fraction)
    at = paragraph + 2 if near else line + 1
    head, tail = document.text[:at], document.text[at:]
    if not head.strip() or not tail.strip():
        return [document]
    first = assign(head, origin=document.origin, validation_fraction=0.0)
    return [first, replace(assign(tail, origin=f"{document.origin}#end", validation_fraction=0.0), split=VALIDATION)]
