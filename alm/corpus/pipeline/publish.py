"""Publication of a source: move its finished shards into place, and write their metadata."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from alm import artifacts, files
from alm.artifacts import CleanShard, Held, SourceMetadata
from alm.config.base import Config
from alm.corpus import report
from alm.corpus.counts import Counts
from alm.corpus.pipeline.decide import Settled
from alm.corpus.pipeline.job import Job, Look, is_ours, shards_in
from alm.corpus.pipeline.unit_store import UnitFiles, is_as_written, read_marker, write_marker
from alm.corpus.pipeline.units import Plan
from alm.corpus.pipeline.write_texts import FinishedMarker, Finishing
from alm.corpus.read import STATE_FOLDER
from alm.corpus.report import CorpusReport, Lengths, SourceReport
from alm.corpus.sources import SPOOL
from alm.errors import AlmError, InputError, shell
from alm.events import Listener, Noted
from alm.files import staging

_REPORT = "report.json"
_OF_UNIT = re.compile(r"(\d{5})\.[a-z0-9.-]+", re.ASCII)


def is_in_place(job: Job, shard: CleanShard | None, stem: Path, published: SourceMetadata | None) -> bool:
    """Whether a finished shard exists unchanged: published, or beside `stem` and waiting for publication.

    A waiting file is read to check its hash. A published file is read only with `--force`, which repairs damage,
    or if the metadata `published` does not list it.
    """
    promised = {file.path: file.sha256 for file in published.payload()} if published and not job.force else {}
    for waiting, name, size, digest in () if shard is None else _files(shard, stem):
        place = job.out / name
        if os.path.lexists(waiting):
            is_there = is_as_written(waiting, digest, size=size)
        elif promised.get(name) == digest:
            is_there = place.is_file() and size in (None, place.stat().st_size)
        else:
            is_there = is_as_written(place, digest, size=size)
        if not is_there:
            return False
    return True


def _files(shard: CleanShard, stem: Path) -> list[tuple[Path, str, int | None, str]]:
    """Return each file of a shard: its path until publication, its name, its size if known, and its hash."""
    ending = shard.file[shard.file.rindex("-") + 6 :]
    found: list[tuple[Path, str, int | None, str]] = []
    if shard.lines_file and shard.lines_sha256:
        # The lines go first: a text counts as ours only if its lines lie beside it.
        found.append((stem.with_name(stem.name + ".jsonl"), shard.lines_file, None, shard.lines_sha256))
    return [*found, (stem.with_name(stem.name + ending), shard.file, shard.bytes, shard.sha256)]


def publish(
    job: Job,
    look: Look,
    finishings: Sequence[Finishing],
    markers: Sequence[FinishedMarker],
    settled: Settled,
    held: Held | None,
) -> SourceMetadata:
    """Publish the shards of `finishings` and their metadata as the clean text of the source, atomically.

    `held` is the text that an earlier command held out.
    """
    counts = Counts.summed(marker.counts for marker in markers)
    _refuse_nothing(job, counts)
    held = settled.held or held
    metadata = _metadata(job, look.plan, markers, counts, held)
    moves: dict[str, str] = {}
    for finishing, marker in zip(finishings, markers, strict=True):
        for waiting, name, _, _ in () if marker.shard is None else _files(marker.shard, finishing.stem):
            if waiting.is_file():
                moves[waiting.relative_to(job.out).as_posix()] = name
    before = {path.name for path in shards_in(job.out, job.name) if is_ours(job, path, look.published)}
    gone = before - {file.path for file in metadata.payload()}
    gone |= _leftovers(job, {finishing.files for finishing in finishings})
    with staging(job.out, job.name) as stage:
        state = stage / job.state.relative_to(job.out)
        if held is not None:
            write_marker(state / "held.json", held)
        write_marker(state / _REPORT, _report(job, look.plan, metadata, counts, settled))
        artifacts.write(stage / job.metadata_path.name, metadata)
        staged = [path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file()]
        _refuse_folders(job, [*moves.values(), *staged])
        files.publish(
            stage,
            job.out,
            last=job.metadata_path.name,  # the metadata must never list a file that is not there yet
            replaces=gone,
            moves=moves,
        )
    return metadata


def _refuse_folders(job: Job, names: Iterable[str]) -> None:
    """Refuse a publication that could not be completed because a folder has the name of a file."""
    for path in (job.out / name for name in names):
        if path.is_dir():
            raise AlmError(
                f"`{path}` is a folder, but a file is needed there",
                hint=f"run `{shell('mv', '-n', path, path.with_name(f'{path.name}.aside'))}`, then the same command",
            )


def _refuse_nothing(job: Job, counts: Counts) -> None:
    if counts.documents_out:
        return
    dropped = ", ".join(f"{number:,} {reason}" for reason, number in counts.documents_dropped.items())
    if set(counts.documents_dropped) <= {"empty"}:
        raise InputError(f"source `{job.name}` holds no text", hint="check its files, or set `enabled: false` for it")
    if set(counts.documents_dropped) <= {"empty", "too_long"}:
        key = f"max_document_bytes={4 * job.source.max_document_bytes}"
    elif "repeated_lines" in counts.documents_dropped:
        key = "deduplicate.lines=null"
    else:
        key = "filters=light"
    raise InputError(
        f"no document of source `{job.name}` is left: {dropped}",
        hint=f"drop less: `--set sources.{job.name}.{key}`",
    )


def _metadata(
    job: Job, plan: Plan, markers: Sequence[FinishedMarker], counts: Counts, held: Held | None
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
        held=held,
        shards=tuple(marker.shard for marker in markers if marker.shard is not None),
    )


def _report(job: Job, plan: Plan, metadata: SourceMetadata, counts: Counts, settled: Settled) -> SourceReport:
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
        examples=counts.examples,
        lengths=Lengths(input=counts.lengths_in, kept=counts.lengths_kept),
        languages=counts.languages,
        duplicates=settled.duplicates,
        evaluation_hits=dict(hits[:50]),
        filters={_kind(config): config.model_dump(mode="json", exclude={"kind"}) for config in _filters(job)},
        seconds=counts.seconds,
    )


def _filters(job: Job) -> Sequence[Config]:
    return job.filters() if job.source.filters != "light" else ()


def _kind(config: Config) -> str:
    return str(getattr(config, "kind"))  # noqa: B009 (kinds have it, the base class has not)


def _leftovers(job: Job, used: Collection[UnitFiles]) -> set[str]:
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


def tidy(job: Job) -> None:
    """Remove the copy of standard input, and the files of a killed command. A file that cannot be removed stays."""
    with contextlib.suppress(OSError):
        (job.state / SPOOL).unlink(missing_ok=True)
    with contextlib.suppress(OSError, AlmError):
        files.clear(job.out, job.name)


def reports_in(out: Path, *, on_event: Listener) -> CorpusReport:
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
