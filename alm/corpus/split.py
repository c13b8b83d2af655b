"""The split into training and validation: by the hash of the oldest member of a document's duplicate cluster.

Duplicates share a cluster and therefore a split, and a document's split does not change when others are added.
"""

from __future__ import annotations

import hashlib

TRAIN = "train"
VALIDATION = "validation"
SPLITS = (TRAIN, VALIDATION)
_BUCKETS = 1 << 32


def split_of(cluster: str, validation_fraction: float) -> str:
    """Return the split of a duplicate cluster: `validation` for `validation_fraction` of all hashes."""
    # Hashed again, so that choosing by split is independent of any other use of the hash's first bits.
    bucket = int.from_bytes(hashlib.sha256(f"split {cluster}".encode()).digest()[:4], "big")
    return VALIDATION if bucket < validation_fraction * _BUCKETS else TRAIN


def cut(text: str, validation_fraction: float) -> tuple[str, str] | None:
    """Cut `text` in two at the last line break before its final `validation_fraction`; None if there is none."""
    target = int(len(text) * (1.0 - validation_fraction))
    paragraph = text.rfind("\n\n", 0, target)
    line = text.rfind("\n", 0, target)
    # Prefer the end of a paragraph, unless that holds out more than twice the requested share.
    near = paragraph >= len(text) * (1.0 - 2 * validation_fraction)
    at = paragraph + 2 if near else line + 1
    head, tail = text[:at], text[at:]
    return (head, tail) if head.strip() and tail.strip() else None
