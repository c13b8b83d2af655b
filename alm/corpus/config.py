"""The corpus file: named sources of any kind, and how much of each is held out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from alm.config.base import Config, OfKind
from alm.errors import InputError
from alm.files import suffix

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SHARD_NUMBER = re.compile(r"-\d{5}$")


class SourceConfig(Config):
    """The keys that every kind of source has."""

    kind: str
    enabled: bool = Field(default=True, description="Whether `alm corpus prepare` reads this source.")
    limit: int | None = Field(default=None, gt=0, description="Most documents to keep; absent keeps all.")
    max_bytes: int | None = Field(default=None, gt=0, description="Most UTF-8 bytes to keep; absent keeps all.")


class CorpusConfig(Config):
    """What `alm corpus prepare` reads."""

    sources: dict[str, Annotated[Config, OfKind("alm.corpus.sources")]] = Field(
        description="Sources by name; the name begins each of the source's files."
    )
    validation_fraction: float = Field(
        default=0.01, ge=0.0, le=0.5, description="Share of the documents held out from training, chosen by hash."
    )

    @field_validator("sources")
    @classmethod
    def _names_are_file_names(cls, sources: dict[str, Config]) -> dict[str, Config]:
        for name in sources:
            if not _NAME.fullmatch(name) or _SHARD_NUMBER.search(name):
                raise ValueError(
                    f"source name `{name}` cannot begin a file name: use letters, digits, `_`, `.` and `-`, "
                    "and no five digits at the end"
                )
        return sources


def values_for_paths(given: Sequence[str]) -> dict[str, Any]:  # Any: raw configuration, validated by the caller
    """The corpus file that would read the files and folders `given`, each a source named after it."""
    sources: dict[str, Any] = {}
    for path in given:
        try:
            _add(path, sources)
        except (OSError, ValueError) as error:  # a name too long for the system
            raise InputError(f"`{path}` cannot be read: {error}", hint="run `ls` to see what is there") from error
    return {"sources": sources}


def _add(path: str, sources: dict[str, Any]) -> None:
    from alm.corpus.sources import jsonl, text

    is_folder = Path(path).is_dir()
    reads_json = suffix(Path(path)) in jsonl.SUFFIXES
    if is_folder and _holds(path, jsonl.SUFFIXES):
        reads_json = not _holds(path, text.SUFFIXES)
        if not reads_json:
            sources[_free_name(path, sources, more="-jsonl")] = {"kind": "jsonl", "paths": [path]}
    sources[_free_name(path, sources)] = {"kind": "jsonl" if reads_json else "text", "paths": [path]}


def _holds(folder: str, suffixes: frozenset[str]) -> bool:
    return any(path.is_file() and suffix(path) in suffixes for path in Path(folder).rglob("*"))


def _free_name(path: str, taken: Container[str], *, more: str = "") -> str:
    """A source name made of the last part of `path`, numbered when it is taken."""
    stem = Path(path).resolve().name
    while Path(stem).suffix.lower() in (".gz", ".zst", ".txt", ".text", ".md", ".rst", ".jsonl", ".ndjson"):
        stem = Path(stem).stem
    name = _SHARD_NUMBER.sub("", re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._")) or "text"
    name += more
    return next(n for n in (name if i == 1 else f"{name}-{i}" for i in itertools.count(1)) if n not in taken)
