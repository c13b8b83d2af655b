"""Publication of a source: move its finished shards into place, and write their metadata."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from alm import artifacts, files, kinds
from alm.artifacts import HoldOut, SourceMetadata
from alm.corpus import report
from alm.corpus.counts import Counts
from alm.corpus.pipeline.decide import Outcome
from alm.corpus.pipeline.job import CorpusJob, Inspection, is_ours, shards_in
from alm.corpus.pipeline.unit_store import UnitFiles, read_marker, write_marker
from alm.corpus.pipeline.units import Plan
from alm.corpus.pipeline.write_texts import ShardMarker, WriteTexts
from alm.corpus.read import STATE_FOLDER
from alm.corpus.report import CorpusReport, Lengths, SourceReport
from alm.corpus.sources import SPOOL
from alm.errors import AlmError, InputError, quoted, shell
from alm.events import Listener, Noted, ignore
from alm.files import exclusive, staging

_REPORT = "report.json"
_PATIENCE = 30.0  # writing a report takes milliseconds
_OF_UNIT = re.compile(r"(\d{5})\.[a-z0-9.-]+", re.ASCII)


def publish(
    job: CorpusJob,
    inspection: Inspection,
    stages: Sequence[WriteTexts],
    markers: Sequence[ShardMarker],
    outcome: Outcome,
) -> SourceMetadata:
    """Publish the shards of `stages` and their metadata as the clean text of the source, atomically."""
    counts = Counts.summed(marker.counts for marker in markers)
    _refuse_nothing(job, counts)
    metadata = _metadata(job, inspection.plan, markers, counts, outcome.hold_out)
    moves: dict[str, str] = {}
    for writing, marker in zip(stages, markers, strict=True):
        for file in writing.outputs(marker):
            if file.waiting.is_file():
                moves[file.waiting.relative_to(job.out).as_posix()] = file.name
    before = {path.name for path in shards_in(job.out, job.name) if is_ours(job, path, inspection.published)}
    replaced = before - {file.path for file in metadata.payload()}
    replaced |= _leftovers(job, {writing.files for writing in stages})
    with staging(job.out, job.name) as stage:
        state = stage / job.state.relative_to(job.out)
        if outcome.hold_out is not None:
            write_marker(state / "held.json", outcome.hold_out)
        write_marker(state / _REPORT, _report(job, inspection.plan, metadata, counts, outcome.duplicates))
        artifacts.write(stage / job.metadata_path.name, metadata)
        staged = [path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file()]
        _refuse_folders(job, [*moves.values(), *staged])
        files.publish(
            stage,
            job.out,
            last=job.metadata_path.name,  # the metadata must never list a file that is not there yet
            replaces=replaced,
            moves=moves,
        )
    return metadata


def _refuse_folders(job: CorpusJob, names: Iterable[str]) -> None:
    """Refuse a publication that could not be completed because a folder has the name of a file."""
    for path in (job.out / name for name in names):
        if path.is_dir():
            raise AlmError(
                f"`{path}` is a folder, but a file is needed there",
                hint=f"run `{shell('mv', '-n', path, path.with_name(f'{path.name}.aside'))}`, then the same command",
            )


def _refuse_nothing(job: CorpusJob, counts: Counts) -> None:
    """Raise `InputError` if no document is left; its hint is for the reason that dropped most of them."""
    if counts.documents_out:
        return
    dropped = {reason: number for reason, number in counts.documents_dropped.items() if reason != "empty"}
    if not dropped:
        raise InputError(f"source `{job.name}` holds no text", hint="check its files, or set `enabled: false` for it")
    said = ", ".join(
        f"{number:,} {reason} ({report.meaning(reason)})" for reason, number in counts.documents_dropped.items()
    )
    most = max(dropped, key=lambda reason: dropped[reason])
    key = f"sources.{job.name}"
    if most in ("not_text", "no_field"):
        field = _other_field(counts.examples[most][0].text, getattr(job.source, "field", ""))
        hint = (
            f"name a field that holds text: `--set {key}.field={quoted(field) if field else '...'}`, "
            f"or for conversations the kind of rows: `--set {key}.adapter=messages`"
        )
    elif most.startswith("bad_"):
        hint = f"see what is wrong with the first of them: `--set {key}.on_bad_input=stop`"
    elif most == "too_long":
        hint = f"keep longer documents: `--set {key}.max_document_bytes={quoted(4 * job.source.max_document_bytes)}`"
    elif most == "repeated_lines":
        hint = f"keep lines that repeat: `--set {key}.deduplicate.lines=null`"
    else:
        hint = f"drop less: `--set {key}.filters=light`"
    raise InputError(f"no document of source `{job.name}` is left: {said}", hint=hint)


def _other_field(row: str, field: str) -> str:
    """Return the name of a field of `row`, JSON that may be cut short, which likely holds the text, or nothing."""
    with contextlib.suppress(ValueError):
        values = {name: value for name, value in files.parse_row(row).items() if name != field}
        # Values of columns that are not read are null.
        likely = {name: len(value or "") for name, value in values.items() if value is None or isinstance(value, str)}
        return max(likely, key=likely.__getitem__, default="")
    return ""


def _metadata(
    job: CorpusJob, plan: Plan, markers: Sequence[ShardMarker], counts: Counts, hold_out: HoldOut | None
) -> SourceMetadata:
    return SourceMetadata(
        command=job.command,
        config=job.config_values(),
        inputs=plan.records(),
        source=job.name,
        kind=job.source.kind,
        revision=plan.revision,
        licence=plan.licence,
        documents=counts.documents(),
        bytes=counts.bytes(),
        validation_documents=counts.validation_documents,
        held=hold_out,
        held_out=counts.held_out(),
        format_version=SourceMetadata.newest_version if hold_out is not None and hold_out.pieces else 1,
        shards=tuple(marker.shard for marker in markers if marker.shard is not None),
        conversations=sum(marker.conversations for marker in markers),
    )


def _report(
    job: CorpusJob, plan: Plan, metadata: SourceMetadata, counts: Counts, duplicates: dict[str, int]
) -> SourceReport:
    filters = job.filters() if job.source.filters != "light" else ()
    hits = sorted(counts.evaluation_hits.items(), key=lambda item: (-item[1], item[0]))
    return SourceReport(
        source=job.name,
        kind=job.source.kind,
        revision=plan.revision,
        licence=plan.licence,
        units=len(plan.units),
        shards=len(metadata.shards),
        documents=metadata.documents,
        bytes=metadata.bytes,
        validation_documents=metadata.validation_documents,
        held_out=metadata.held_out,
        examples=counts.examples,
        lengths=Lengths(input=counts.lengths_in, kept=counts.lengths_kept),
        languages=counts.languages,
        duplicates=duplicates,
        evaluation_hits=dict(hits[:50]),
        filters={kinds.name_of(config): config.model_dump(mode="json", exclude={"kind"}) for config in filters},
        seconds=counts.seconds,
        lost=counts.lost,
    )


def _leftovers(job: CorpusJob, used: Collection[UnitFiles]) -> set[str]:
    """Return the files to remove: the texts of the passes, and all files of units that are not `used`."""
    numbers = {files.number for files in used}
    found = [job.state / SPOOL]
    for path in (*job.state.glob("*"), *(job.state / "lines").glob("*")):
        if (match := _OF_UNIT.fullmatch(path.name)) is None:
            continue
        unit = UnitFiles(path.parent, int(match[1]))
        if path == unit.text or not (unit in used or (path.parent == job.state and unit.number in numbers)):
            found.append(path)
    return {path.relative_to(job.out).as_posix() for path in found if path.is_file()}


def tidy(job: CorpusJob) -> None:
    """Remove the copy of standard input, and the files of a killed command. A file that cannot be removed stays."""
    with contextlib.suppress(OSError):
        (job.state / SPOOL).unlink(missing_ok=True)
    with contextlib.suppress(OSError, AlmError):
        files.clear(job.out, job.name)


def write_report(out: Path, on_event: Listener) -> None:
    """Write the report of all sources in `out`, unless the existing one is current."""
    lock = out / STATE_FOLDER / "report.lock"
    if _is_reported(out, _reports_in(out, on_event=on_event)):
        if lock.exists():  # a killed command left it; what cannot be removed harms nothing
            with contextlib.suppress(AlmError), exclusive(lock, what=f"the report of `{out}`", patience_seconds=0):
                pass
        return
    # Other processes that prepare another source write it too: the last one to write must include all sources.
    with exclusive(lock, what=f"the report of `{out}`", patience_seconds=_PATIENCE):
        found = _reports_in(out, on_event=ignore)
        if not _is_reported(out, found):
            report.write(found, out)


def _is_reported(out: Path, found: CorpusReport) -> bool:
    return not found.sources or (report.read(out) == found and (out / report.HTML_NAME).is_file())


def _reports_in(out: Path, *, on_event: Listener) -> CorpusReport:
    """Collect the reports of all sources whose clean text is in `out`.

    If the report of a source is damaged, use its copy in the common report, provided that it matches the metadata.
    """
    written = report.read(out)
    copies = {} if written is None else {source.source: source for source in written.sources}
    found = []
    for folder in sorted(path for path in (out / STATE_FOLDER).glob("*") if path.is_dir()):
        metadata_path = out / f"{folder.name}.json"
        if not metadata_path.is_file():
            continue
        known = read_marker(folder / _REPORT, SourceReport, may_lack_checksum=True)
        if known is None and folder.name in copies and _fits(copies[folder.name], metadata_path):
            known = copies[folder.name]
            write_marker(folder / _REPORT, known)
        if known is not None and known.source == folder.name:
            found.append(known)
        elif (folder / _REPORT).exists():
            on_event(Noted(f"`{folder / _REPORT}` is damaged: the report leaves out `{folder.name}`"))
    return CorpusReport(sources=tuple(found))


def _fits(copy: SourceReport, metadata_path: Path) -> bool:
    try:
        metadata = artifacts.read(metadata_path, SourceMetadata, hint="")
    except AlmError:
        return False
    return all(
        getattr(copy, name) == getattr(metadata, name) for name in ("documents", "bytes", "validation_documents")
    )
