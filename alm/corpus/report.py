"""The drop report of a clean corpus: what came in, what was kept, what went and why, with examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from alm import __version__
from alm.artifacts import FORMAT_VERSION, Tally
from alm.config.base import Config
from alm.files import write_json


JSON_NAME = "_report.json"
HTML_NAME = "_report.html"


class Example(Config):
    """The beginning of a document that was dropped, where it came from, and what else is to say."""

    origin: str
    text: str
    detail: str = ""


class Lengths(Config):
    """Documents by length: the key is the lower bound in bytes, a power of two."""

    input: dict[str, int]
    kept: dict[str, int]


class SourceReport(Config):
    """One source. `changed`, `dropped` and `examples` are by reason, `seconds` by step."""

    source: str
    kind: str
    revision: str | None
    licence: str | None
    units: int
    shards: int
    documents: Tally
    bytes: Tally
    validation_documents: int
    examples: dict[str, tuple[Example, ...]]
    lengths: Lengths
    languages: dict[str, int]
    duplicates: dict[str, int]
    evaluation_hits: dict[str, int]
    filters: dict[str, dict[str, Any]]  # Any: the JSON of a configuration
    seconds: dict[str, float]


class CorpusReport(Config):
    """`_report.json`."""

    format: Literal["alm-corpus-report"] = "alm-corpus-report"
    format_version: int = FORMAT_VERSION
    alm_version: str = __version__
    sources: tuple[SourceReport, ...]


def read(folder: Path) -> CorpusReport | None:
    """The report in `folder`; None when there is none that can be read."""
    try:
        return CorpusReport.model_validate_json((folder / JSON_NAME).read_bytes())
    except (OSError, ValueError):
        return None


def write(report: CorpusReport, folder: Path) -> None:
    """`_report.json` in `folder`."""
    write_json(folder / JSON_NAME, report.model_dump(mode="json"))
