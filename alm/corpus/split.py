"""Which documents are held out: by hash of the duplicate cluster's oldest member, decided once and written with each.

Duplicates share a cluster and so a split, and a document's split does not change when others are added.
"""

from __future__ import annotations

import hashlib

TRAIN = "train"
VALIDATION = "validation"
SPLITS = (TRAIN, VALIDATION)
_BUCKETS = 1 << 32


def split_of(cluster: str, validation_fraction: float) -> str:
    """The split of a duplicate cluster: `validation` for `validation_fraction` of all hashes."""
    # Hashed again, so that choosing by split is independent of any other use of the hash's first bits.
    bucket = int.from_bytes(hashlib.sha256(f"split {cluster}".encode()).digest()[:4], "big")
    return VALIDATION if bucket < validation_fraction * _BUCKETS else TRAIN


def cut(text: str, validation_fraction: float) -> tuple[str, str] | None:
    """`text` as two, parted by the line break nearest before its last `validation_fraction`; None if there is none."""
    target = int(len(text) * (1.0 - validation_fraction))
    paragraph = text.rfind("\n\n", 0, target)
    line = text.rfind("\n", 0, target)
    # A paragraph end is the better place, if it does not hold out twice what was asked for.
    near = paragraph >= len(text) * (1.0 - 2 * validation_fraction)
    at = paragraph + 2 if near else line + 1
    head, tail = text[:at], text[at:]
    return (head, tail) if head.strip() and tail.strip() else None
