"""The drop report of a clean corpus: input, kept and dropped text by reason, with examples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from alm import formatting, page
from alm.artifacts import FORMAT_VERSION, Balance, HeldOut
from alm.config.base import Config
from alm.corpus.document import FIELD_OF_MESSAGE, FIELD_OF_ROW
from alm.corpus.held_out import in_words
from alm.errors import AlmError, ArtifactError, shell
from alm.files import read_json, readable, write_json, write_text
from alm.page import Bars, Table
from alm.version import __version__

JSON_NAME = "_report.json"
HTML_NAME = "_report.html"
_GENERATOR = "alm corpus prepare"
_FORMAT = b'"alm-corpus-report"'
_HEAD_BYTES = 4096  # a report begins with its format


class Example(Config):
    """The beginning of a dropped document, its origin, and an optional detail."""

    origin: str
    text: str
    detail: str = ""


class Lengths(Config):
    """Numbers of documents by length. The key is the lower bound in bytes, a power of two."""

    input: dict[str, int]
    kept: dict[str, int]


class SourceReport(Config):
    """The report of one source. `changed`, `dropped`, `examples` and `lost` are by reason, `seconds` by step."""

    source: str
    kind: str
    revision: str | None
    licence: str | None
    units: int
    shards: int
    documents: Balance
    bytes: Balance
    validation_documents: int
    held_out: HeldOut | None = None
    examples: dict[str, tuple[Example, ...]]
    lengths: Lengths
    languages: dict[str, int]
    duplicates: dict[str, int]
    evaluation_hits: dict[str, int]
    filters: dict[str, dict[str, Any]]  # Any: the JSON of a configuration
    seconds: dict[str, float]
    lost: dict[str, int] = Field(default={})


class CorpusReport(Config):
    """The contents of `_report.json`."""

    format: Literal["alm-corpus-report"] = "alm-corpus-report"
    format_version: int = FORMAT_VERSION
    alm_version: str = __version__
    sources: tuple[SourceReport, ...]


def read(folder: Path) -> CorpusReport | None:
    """Read the report in `folder`; None if it is missing or damaged."""
    try:
        return CorpusReport.model_validate(read_json(folder / JSON_NAME))
    except (OSError, ValueError, AlmError):
        return None


def refuse_unknown_files(folder: Path) -> None:
    """Raise `ArtifactError` if a file in `folder` has the name of a report file and no corpus wrote it."""
    for name in (HTML_NAME, JSON_NAME):
        path = folder / name
        if not os.path.lexists(path) or _is_ours(path):
            continue
        raise ArtifactError(
            f"`{path}` exists, and `alm corpus prepare` did not write it: its report would have that name",
            hint=f"run `{shell('mv', '-n', path, path.with_name(f'{name}.aside'))}`, then the same command; "
            "or choose another folder with `--out`",
        )


def _is_ours(path: Path) -> bool:
    if not path.is_file():
        return False
    with readable(path), path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return not head or (page.is_made_by(_GENERATOR, head) if path.name == HTML_NAME else _FORMAT in head)


def write(report: CorpusReport, folder: Path) -> None:
    """Write `_report.html` and `_report.json` to `folder`."""
    write_text(folder / HTML_NAME, html(report))
    write_json(folder / JSON_NAME, report.model_dump(mode="json"))


def faults(report: CorpusReport) -> list[str]:
    """Describe the sums that do not add up, in a sentence each: input = kept + dropped, output = kept + changed."""
    found = []
    for source in report.sources:
        for name, tally in (("documents", source.documents), ("bytes", source.bytes)):
            if tally.input != tally.kept + sum(tally.dropped.values()):
                found.append(f"{source.source}: {name} in differ from kept + dropped")
            if tally.output != tally.kept + sum(tally.changed.values()):
                found.append(f"{source.source}: {name} out differ from kept + changes")
    return found


def html(report: CorpusReport) -> str:
    """Render the report as one self-contained page."""
    return page.render(
        "corpus_report.html",
        generator=_GENERATOR,
        title="Corpus report",
        read=_opening(report),
        faults="; ".join(faults(report)),
        overview=_overview(report),
        sources=[_section(source) for source in report.sources],
    )


def _opening(report: CorpusReport) -> str:
    documents = sum(source.documents.input for source in report.sources)
    kept = sum(source.documents.kept for source in report.sources)
    size_in = sum(source.bytes.input for source in report.sources)
    size_out = sum(source.bytes.output for source in report.sources)
    share = f" ({kept / documents:.1%})" if documents else ""
    return (
        f"{documents:,} documents ({formatting.size(size_in)}) were read, and {kept:,} were kept{share}: "
        f"{formatting.size(size_out)} of clean text."
    )


def _overview(report: CorpusReport) -> Table:
    columns = ("source", "kind", "licence", "revision", "documents in", "kept", "text in", "text out", "held out")
    rows = [
        (
            source.source,
            source.kind,
            source.licence or "not stated",
            (source.revision or "")[:12],
            source.documents.input,
            source.documents.kept,
            formatting.size(source.bytes.input),
            formatting.size(source.bytes.output),
            f"{source.validation_documents:,}" if source.held_out is None else in_words(source.held_out),
        )
        for source in report.sources
    ]
    return Table(columns, rows)


def _section(source: SourceReport) -> dict[str, Any]:
    """The values of a source, by their names in the template."""
    size = source.bytes
    changes = "".join(f" {number:+,} {reason}" for reason, number in size.changed.items())
    counts = [("Languages", Table(("language", "documents"), _by_number(source.languages)))] if source.languages else []
    if any(source.documents.dropped.get(reason) for reason in ("exact_duplicate", "near_duplicate")):
        facts = [(name.replace("_", " "), number) for name, number in source.duplicates.items()]
        counts.append(("Duplicates", Table(("", "documents"), facts)))
    if source.evaluation_hits:
        counts.append(("Evaluation items found", Table(("item", "documents"), _by_number(source.evaluation_hits))))
    if source.lost:
        lost = [(name, number, meaning(name)) for name, number in _by_number(source.lost)]
        counts.append(("Lost from documents that were read", Table(("what", "times", "meaning"), lost)))
    return {
        "name": source.source,
        "sums": f"bytes in {size.input:,} = kept {size.kept:,} + dropped {sum(size.dropped.values()):,}; "
        f"out {size.output:,} = kept {size.kept:,}{changes or ' + no changes'}",
        "reasons": _reasons(source) if size.dropped else None,
        "examples": [(reason, _texts(shown)) for reason, shown in source.examples.items() if shown],
        "lengths": _lengths(source),
        "counts": counts,
        "times": _times(source),
    }


def _reasons(source: SourceReport) -> Table:
    total = max(1, source.documents.input)
    rows = []
    for reason, size in sorted(source.bytes.dropped.items(), key=lambda item: -item[1]):
        number = source.documents.dropped.get(reason, 0)
        rows.append((reason, number, f"{number / total:.2%}", formatting.size(size), meaning(reason)))
    return Table(("reason", "documents", "share", "text", "meaning"), rows)


def meaning(reason: str) -> str:
    """Describe a reason in words."""
    if reason.startswith(FIELD_OF_MESSAGE):
        return f"field `{reason.removeprefix(FIELD_OF_MESSAGE)}` of a message, beside its text"
    if reason.startswith(FIELD_OF_ROW):
        return f"field `{reason.removeprefix(FIELD_OF_ROW)}` of a row, beside its messages"
    return _MEANINGS.get(reason) or f"rule {reason.replace('_', ' ')}"


def _texts(shown: Sequence[Example]) -> list[tuple[str, str]]:
    return [(f"{e.origin} ({e.detail})" if e.detail else e.origin, e.text) for e in shown]


def _lengths(source: SourceReport) -> Bars | None:
    first, second = source.lengths.input, source.lengths.kept
    if not first:
        return None
    bounds = [1 << n for n in range(max(int(key) for key in first).bit_length())]
    keys = [str(bound) for bound in ([0, *bounds] if "0" in first else bounds)]
    keys = keys[next(i for i, key in enumerate(keys) if key in first) :]
    named = {key: _bound(int(key)) for key in keys}
    return Bars(
        f"Documents of {source.source} by length",
        {named[key]: first.get(key, 0) for key in keys},
        {named[key]: second.get(key, 0) for key in keys},
        names=("in", "kept"),
    )


def _bound(number: int) -> str:
    for unit in ("", "k", "M", "G"):
        if number < 1024:
            return f"{number}{unit}"
        number //= 1024
    return f"{number}T"


def _by_number(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _times(source: SourceReport) -> Table:
    total = sum(source.seconds.values())
    rows = []
    for step, seconds in sorted(source.seconds.items(), key=lambda item: -item[1]):
        speed = f"{formatting.size(source.bytes.input / seconds)}/s" if seconds > 0 else ""
        rows.append((step.replace("_", " "), f"{seconds:,.2f} s", f"{seconds / total:.0%}" if total else "", speed))
    return Table(("step", "time", "share", "speed"), rows)


_MEANINGS = {
    "replaced_characters": "characters that cannot be decoded, read as U+FFFD",
    "unclosed_markup": "characters of web pages inside a comment, script, style or quote without an end",
    "empty": "nothing but white space",
    "separator": "line ends between documents",
    "too_long": "longer than max_document_bytes",
    "not_text": "the field holds something other than text",
    "no_field": "the field does not exist",
    "bad_shape": "not what the adapter reads",
    "bad_json": "not JSON",
    "bad_csv": "not CSV",
    "bad_utf8": "not UTF-8",
    "repeated_lines": "all of its lines are in earlier documents",
    "exact_duplicate": "equal to an earlier text",
    "near_duplicate": "nearly equal to an earlier text",
    "over_budget": "beyond the limit of the source",
    "decontaminate_overlap": "contains an item of an evaluation file",
    "language_not_kept": "in another language",
    "language_uncertain": "its language is not clear",
    "gopher_quality_too_few_words": "fewer words than Gopher's rules require",
    "gopher_quality_few_stop_words": "too few of the most common English words",
    "gopher_quality_few_letters": "too many words without a letter",
    "c4_curly_bracket": "contains a curly bracket, as source code does",
    "c4_too_few_sentences": "too few sentences",
    "fineweb_few_punctuated_lines": "too few lines end with punctuation",
    "fineweb_short_lines": "too many short lines",
    "fineweb_repeated_lines": "too many repeated lines",
    "fineweb_list": "too many newlines for its words",
}
