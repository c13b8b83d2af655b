"""The split of text that `alm corpus prepare` has not split, by the same rules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from alm.artifacts import HoldOut
from alm.corpus.read import CleanDocument, CleanFile, read_documents
from alm.corpus.split import LONG_BYTES, TRAIN, VALIDATION, in_pieces, is_few, piece_count, split_of


def choose(files: Iterable[CleanFile], validation_fraction: float) -> HoldOut | None:
    """Return how to hold out text of the foreign ones among `files`; None to choose whole documents by hash.

    Reads them if there are few files: each may hold many documents.
    """
    foreign = [file for file in files if file.shard is None]
    by_file = [file.path.stat().st_size for file in foreign]
    if not is_few(sum(by_file), sum(size * size for size in by_file), validation_fraction):
        return None
    total = squares = 0
    largest, digest, is_any_held_out = 0, "", False
    by_hash = HoldOut(pieces=True)
    for document in read_documents(foreign):
        data = document.text.encode("utf-8")
        total, squares = total + len(data), squares + len(data) ** 2
        if not is_any_held_out:
            name, is_cut = _chosen(sha := hashlib.sha256(data).hexdigest(), len(data), validation_fraction, by_hash)
            is_any_held_out = is_cut or name == VALIDATION
            if len(data) > largest:
                largest, digest = len(data), sha
    if not is_few(total, squares, validation_fraction):
        return None
    return by_hash if is_any_held_out or largest < LONG_BYTES else HoldOut(pieces=True, digest=digest)


def split_foreign(
    document: CleanDocument, validation_fraction: float, hold_out: HoldOut | None
) -> list[tuple[str, str]]:
    """Return the parts of a document, each with its split: of clean text the document, with the split that it has."""
    if document.split is not None:
        return [(document.text, document.split)]
    data = document.text.encode("utf-8")
    digest = hashlib.sha256(data).hexdigest()
    name, is_cut = _chosen(digest, len(data), validation_fraction, hold_out)
    return in_pieces(document.text, digest, validation_fraction) if is_cut else [(document.text, name)]


def _chosen(digest: str, size: int, validation_fraction: float, hold_out: HoldOut | None) -> tuple[str, bool]:
    """Return the split of a document, and whether pieces of it are held out instead."""
    if hold_out is None or not hold_out.pieces or size < LONG_BYTES:
        return split_of(digest, validation_fraction), False
    return TRAIN, piece_count(size, digest, validation_fraction) > 0 or digest == hold_out.digest
