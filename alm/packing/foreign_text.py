"""The split of text that `alm corpus prepare` has not split, by the same rules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from alm.artifacts import HoldOut
from alm.corpus.read import CleanDocument, CleanFile, read_documents
from alm.corpus.split import (
    LONG_BYTES,
    TRAIN,
    VALIDATION,
    in_pieces,
    is_few,
    piece_count,
    raised,
    share_of_hashes,
    split_of,
)


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
    found: dict[str, int] = {}  # of a small text: the size of each document
    for document in read_documents(foreign):
        data = document.text.encode("utf-8")
        sha = hashlib.sha256(data).hexdigest()
        total, squares = total + len(data), squares + len(data) ** 2
        is_small = raised(validation_fraction, total) > validation_fraction
        if is_small:
            found[sha] = len(data)
        else:
            found.clear()
        is_any_held_out = is_any_held_out or _is_held_out(sha, len(data), validation_fraction, by_hash)
        if len(data) > largest:
            largest, digest = len(data), sha
    if not is_few(total, squares, validation_fraction):
        return None
    if found:
        share = raised(validation_fraction, total)
        short = [(sha, size) for sha, size in found.items() if size < LONG_BYTES]
        by_hash = HoldOut(pieces=True, piece_share=share, hash_share=share_of_hashes(short, share))
        is_any_held_out = any(_is_held_out(sha, size, validation_fraction, by_hash) for sha, size in found.items())
    return by_hash if is_any_held_out or largest < LONG_BYTES else by_hash.model_copy(update={"digest": digest})


def _is_held_out(digest: str, size: int, validation_fraction: float, hold_out: HoldOut) -> bool:
    """Return whether the document, or a piece of it, is held out."""
    name, is_cut = _chosen(digest, size, validation_fraction, hold_out)
    return is_cut or name == VALIDATION


def split_foreign(
    document: CleanDocument, validation_fraction: float, hold_out: HoldOut | None
) -> list[tuple[str, str]]:
    """Return the parts of a document, each with its split: of clean text the document, with the split that it has."""
    if document.split is not None:
        return [(document.text, document.split)]
    data = document.text.encode("utf-8")
    digest = hashlib.sha256(data).hexdigest()
    name, is_cut = _chosen(digest, len(data), validation_fraction, hold_out)
    if not is_cut:
        return [(document.text, name)]
    share, _ = (hold_out or HoldOut()).shares(validation_fraction)
    return in_pieces(document.text, digest, share)


def _chosen(digest: str, size: int, validation_fraction: float, hold_out: HoldOut | None) -> tuple[str, bool]:
    """Return the split of a document, and whether pieces of it are held out instead."""
    if hold_out is None or not hold_out.pieces:
        return split_of(digest, validation_fraction), False
    of_pieces, of_hashes = hold_out.shares(validation_fraction)
    if size < LONG_BYTES:
        return split_of(digest, of_hashes), False
    return TRAIN, piece_count(size, digest, of_pieces) > 0 or digest == hold_out.digest
