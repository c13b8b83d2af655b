"""The corpus file: named sources of any kind, the share held out for validation, and the output format."""

from __future__ import annotations

import itertools
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from alm import kinds
from alm.config.base import MANY, MANY_BYTES, Config, OfKind
from alm.config.yaml_files import read_yaml
from alm.corpus.paths import from_text
from alm.corpus.split import DEFAULT_FRACTION
from alm.errors import AlmError, InputError, shell

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SHARD_NUMBER = re.compile(r"-\d{5}$")
_ENDINGS = frozenset(
    {".gz", ".zst", ".xz", ".txt", ".text", ".md", ".rst", ".html", ".htm", ".json", ".jsonl", ".ndjson"}
    | {".csv", ".tsv", ".parquet"}
)


class Deduplication(Config):
    """Rules for repetitions within a source. The first occurrence stays, so inputs added later change nothing."""

    exact: bool = Field(default=True, description="Drop a document that equals an earlier one.")
    near: bool | Literal["auto"] = Field(
        default="auto",
        description="Drop a document that is nearly equal to an earlier one (MinHash). auto: only where the full "
        "filters apply.",
    )
    lines: int | None = Field(
        default=None,
        gt=0,
        le=MANY,
        description="Remove a line that at least this many earlier documents contain; absent removes none. Meant for "
        "web pages: in source code, repeated lines matter.",
    )


FilterConfig = Annotated[Config, OfKind("alm.corpus.filters")]
FULL = ("gopher_repetition", "gopher_quality", "c4", "fineweb", "mask")


class SourceConfig(Config):
    """The keys that every kind of source has."""

    kind: str
    enabled: bool = Field(default=True, description="Read this source in `alm corpus prepare`.")
    limit: int | None = Field(
        default=None, gt=0, le=MANY_BYTES, description="Maximum number of documents to keep; absent keeps all."
    )
    max_bytes: int | None = Field(
        default=None, gt=0, le=MANY_BYTES, description="Maximum number of UTF-8 bytes to keep; absent keeps all."
    )
    max_document_bytes: int = Field(
        default=16 << 20,
        ge=1024,
        le=MANY_BYTES,
        description="Maximum bytes of a document. A longer text is cut between lines, or dropped.",
    )
    on_bad_input: Literal["stop", "skip"] = Field(
        default="stop", description="Stop at a damaged file, line or row, or skip and count it."
    )
    filters: Literal["auto", "light", "full"] | tuple[FilterConfig, ...] = Field(
        default="auto",
        description="Filters that documents must pass. light: only empty ones are dropped; full: the rules for web "
        "pages; auto: full for HTML, light for the rest; or a list of filters.",
    )
    deduplicate: Deduplication = Field(default=Deduplication(), description="Repetitions to remove.")

    @field_validator("filters", mode="before")
    @classmethod
    def _one_filter_is_a_list(cls, given: Any) -> Any:  # Any: raw YAML
        if isinstance(given, dict) or (isinstance(given, str) and given not in ("auto", "light", "full")):
            return (given,)
        return given

    def chosen_filters(self, *, is_web: bool) -> tuple[Config, ...]:
        """Return the filters that a document passes through, in order."""
        if not isinstance(self.filters, str):
            return self.filters
        names = FULL if self.filters == "full" or (self.filters == "auto" and is_web) else ()
        return tuple(kinds.load("alm.corpus.filters", name).Config(kind=name) for name in names)

    def finds_near_duplicates(self, *, is_web: bool) -> bool:
        """Whether documents are compared with earlier ones for near duplicates."""
        if self.deduplicate.near != "auto":
            return self.deduplicate.near
        return self.filters == "full" or (self.filters == "auto" and is_web)


class CorpusConfig(Config):
    """The sources that `alm corpus prepare` reads, and the form in which it writes them."""

    sources: dict[str, Annotated[Config, OfKind("alm.corpus.sources")]] = Field(
        description="Sources by name. The names of a source's output files begin with it."
    )
    validation_fraction: float = Field(
        default=DEFAULT_FRACTION,
        ge=0.0,
        le=0.5,
        description="Share of the text held out for validation: documents chosen by hash, or where they would be few, "
        "pieces of each long document. With the default, 8 kB of a small text, but at most a tenth.",
    )
    format: Literal["txt", "jsonl.zst", "parquet"] = Field(
        default="txt",
        description="Format of the clean text: txt (with document lines in a file beside it), jsonl.zst or parquet.",
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
    """Return a corpus file that reads the files and folders `given`, each as a source named after it."""
    sources: dict[str, Any] = {}
    for path in given:
        try:
            _add(path, sources)
        except (OSError, ValueError, RuntimeError) as error:  # a name too long for the system, links in a circle
            raise InputError(f"`{path}` cannot be read: {error}", hint="run `ls` to see what is there") from error
    return {"sources": sources}


def _add(path: str, sources: dict[str, Any]) -> None:
    if path == "-":
        sources[free_name("stdin", sources)] = {"kind": "stdin"}
    elif _is_corpus_file(Path(path)):
        raise InputError(
            f"`{path}` is a corpus file, not text", hint=f"run `{shell('alm', 'corpus', 'prepare', '--src', path)}`"
        )
    else:
        sources[free_name(path, sources)] = {"kind": "files", "paths": [path]}


def _is_corpus_file(path: Path) -> bool:
    """Whether `path` is a YAML file with a section `sources`, and a kind for each of them."""
    if path.suffix.lower() not in (".yaml", ".yml") or not path.is_file():
        return False
    try:
        values = read_yaml(path)
    except (AlmError, ValueError):
        return False
    sources = values.get("sources") if isinstance(values, dict) else None
    return isinstance(sources, dict) and all(isinstance(each, dict) and "kind" in each for each in sources.values())


def free_name(path: str, taken: Container[str]) -> str:
    """Return a source name made from the last part of `path`, with a number if that name is taken."""
    stem = from_text(path).resolve().name
    while Path(stem).suffix.lower() in _ENDINGS:
        stem = Path(stem).stem
    name = _SHARD_NUMBER.sub("", re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._")) or "text"
    return next(n for n in (name if i == 1 else f"{name}-{i}" for i in itertools.count(1)) if n not in taken)
