"""Lineage of a run, as far as its input artifacts are still in place."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from alm import artifacts
from alm.artifacts import PackMetadata, RunMetadata, SourceMetadata, TokenizerMetadata
from alm.corpus.held_out import in_words
from alm.errors import AlmError
from alm.files import sha256
from alm.packing.shards import METADATA_NAME
from alm.tokenizers.file import metadata_path

HELD_OUT = "held-out text"
_HINT = "run `alm info` on it"


@dataclass(frozen=True)
class Source:
    """A source of the data. Fields are None if unknown, because its clean text was not found."""

    name: str
    documents: int
    bytes: int
    tokens: int
    held_out_tokens: int
    kind: str | None = None
    licence: str | None = None
    revision: str | None = None
    is_clean_text_known: bool = False


@dataclass(frozen=True)
class Lineage:
    """Named facts, the sources, and inputs that have changed or are missing."""

    facts: tuple[tuple[str, str], ...]
    sources: tuple[Source, ...]
    faults: tuple[str, ...]


def trace(run: Path, metadata: RunMetadata) -> Lineage:
    """Follow `run.json` to the packed data, the tokenizer and the clean text. Nothing large is read."""
    folder = Path(os.path.normpath(run / metadata.data))
    facts = [
        ("made by", f"alm {metadata.alm_version}"),
        ("data", folder.as_posix()),
        ("data sha256", metadata.data_sha256),
        ("tokenizer sha256", metadata.tokenizer_sha256),
    ]
    if metadata.initial_weights is not None:
        initial = metadata.initial_weights
        facts.append(("begun from", f"{Path(initial.path).as_posix()}, sha256 {initial.sha256}"))
    packed, faults = _packed(folder, metadata.data_sha256)
    if packed is None:
        return Lineage(tuple(facts), (), tuple(faults))
    facts.append(("tokens", f"{packed.input_tokens:,} in rows of {packed.seq_len:,}, {packed.mode}"))
    facts += _tokenizer(folder, packed)
    facts += [] if packed.held_out is None else [(HELD_OUT, in_words(packed.held_out))]
    facts += [("packed by", packed.command)] if packed.command else []
    sources = tuple(_source(name, folder, packed) for name in packed.sources)
    return Lineage(tuple(facts), sources, tuple(faults))


def _packed(folder: Path, wanted: str) -> tuple[PackMetadata | None, list[str]]:
    path = folder / METADATA_NAME
    try:
        if sha256(path) != wanted:
            return None, [f"`{folder}` now holds other data than the run was trained on"]
        return artifacts.read(path, PackMetadata, hint=_HINT), []
    except AlmError:
        return None, [f"`{folder}` is missing or cannot be read: its sources are unknown"]


def _tokenizer(folder: Path, packed: PackMetadata) -> Iterable[tuple[str, str]]:
    for file in packed.inputs:
        if file.sha256 == packed.tokenizer_sha256:
            metadata = _read(metadata_path(folder / file.path), TokenizerMetadata)
            if metadata is not None and metadata.file.sha256 == packed.tokenizer_sha256:
                text = f"{metadata.kind}, {metadata.vocab_size:,} tokens, learned from {metadata.documents:,} documents"
                return [("tokenizer", text)]
    return [("tokenizer", f"{packed.vocab_size:,} tokens")]


def _source(name: str, folder: Path, packed: PackMetadata) -> Source:
    splits = packed.sources[name]
    train, held_out = (splits.get(split) for split in ("train", "validation"))
    known = Source(
        name=name,
        documents=sum(counts.documents for counts in splits.values()),
        bytes=sum(counts.bytes for counts in splits.values()),
        tokens=train.tokens if train else 0,
        held_out_tokens=held_out.tokens if held_out else 0,
    )
    clean = _clean(name, folder, packed)
    if clean is None:
        return known
    return replace(known, kind=clean.kind, licence=clean.licence, revision=clean.revision, is_clean_text_known=True)


def _clean(name: str, folder: Path, packed: PackMetadata) -> SourceMetadata | None:
    """Return the metadata of the clean text, if its shards are those that were packed."""
    hashes = {file.sha256 for file in packed.inputs}
    for parent in dict.fromkeys((folder / file.path).parent for file in packed.inputs):
        metadata = _read(parent / f"{name}.json", SourceMetadata)
        if metadata is not None and metadata.shards and all(shard.sha256 in hashes for shard in metadata.shards):
            return metadata
    return None


def _read(path: Path, schema: type[artifacts.AnyMetadata]) -> artifacts.AnyMetadata | None:
    try:
        return artifacts.read(path, schema, hint=_HINT)
    except AlmError:
        return None
