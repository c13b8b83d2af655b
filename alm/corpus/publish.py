"""Moving the finished shards of a source into place, and writing down what they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alm import artifacts
from alm.artifacts import CleanShard, SourceMetadata
from alm.config.base import Config
from alm.corpus.counts import Counts
from alm.corpus.finish import FinishedMarker, Finishing
from alm.corpus.job import STATE_FOLDER, Job, is_ours, shards_in
from alm.corpus.kept import UnitFiles, read_marker
from alm.corpus.report import CorpusReport, Lengths, SourceReport
from alm.corpus.settle import Settled
from alm.corpus.units import Plan
from alm.errors import InputError
from alm.files import explained, sha256, sync_folder

_REPORT = "report.json"


def is_in_place(job: Job, shard: CleanShard | None, stem: Path) -> bool:
    """Whether a finished shard is there: published, or beside `stem` waiting for it.

    With `--force` a published shard is read and compared with its hash, because that is how damage is mended.
    """
    if shard is None:
        return True
    return all(
        _is_whole(waiting, job.out / name, size, digest, is_read=job.force)
        for waiting, name, size, digest in _files(shard, stem)
    )


def _files(shard: CleanShard, stem: Path) -> list[tuple[Path, str, int, str]]:
    """Each file of a shard: where it waits, its name, its size (-1 where only the hash is known), its hash."""
    ending = shard.file[shard.file.rindex("-") + 6 :]
    found = [(stem.with_name(stem.name + ending), shard.file, shard.bytes, shard.sha256)]
    if shard.lines_file and shard.lines_sha256:
        # The lines first: a text with its lines beside it is one that we wrote.
        found.insert(0, (stem.with_name(stem.name + ".jsonl"), shard.lines_file, -1, shard.lines_sha256))
    return found


def _is_whole(waiting: Path, place: Path, size: int, digest: str, *, is_read: bool) -> bool:
    if waiting.is_file():
        return size in (-1, waiting.stat().st_size)
    if not place.is_file() or size not in (-1, place.stat().st_size):
        return False
    return not is_read or sha256(place) == digest


def publish(
    job: Job, plan: Plan, finishings: Sequence[Finishing], markers: Sequence[FinishedMarker], settled: Settled
) -> SourceMetadata:
    """Make the shards of `finishings` the clean text of the source, and say what they are."""
    counts = Counts.summed(marker.counts for marker in markers)
    _refuse_nothing(job, counts)
    metadata = _metadata(job, plan, markers, counts)
    names = {name for shard in metadata.shards for name in (shard.file, shard.lines_file) if name}
    if settled.held is not None:
        artifacts.write(job.state / "held.json", settled.held)
    artifacts.write(job.state / _REPORT, _report(job, plan, metadata, counts, settled))
    with explained(job.out):
        job.metadata_path.unlink(missing_ok=True)
        sync_folder(job.out)
        _remove_others(job, names)
        for finishing, marker in zip(finishings, markers, strict=True):
            if marker.shard is not None:
                _move(job, marker.shard, finishing.stem)
        sync_folder(job.out)
    artifacts.write(job.metadata_path, metadata)
    _tidy(job, finishings)
    return metadata


def _refuse_nothing(job: Job, counts: Counts) -> None:
    if counts.documents_out:
        return
    dropped = ", ".join(f"{number:,} {reason}" for reason, number in counts.documents_dropped.items())
    if set(counts.documents_dropped) <= {"empty"}:
        raise InputError(f"source `{job.name}` holds no text", hint="look at its files, or set `enabled: false` for it")
    if set(counts.documents_dropped) <= {"empty", "too_long"}:
        key = f"max_document_bytes={4 * job.source.max_document_bytes}"
    elif "repeated_lines" in counts.documents_dropped:
        key = "deduplicate.lines=null"
    else:
        key = "filters=light"
    raise InputError(
        f"nothing of source `{job.name}` is left: {dropped}",
        hint=f"drop less: `--set sources.{job.name}.{key}`",
    )


def _metadata(job: Job, plan: Plan, markers: Sequence[FinishedMarker], counts: Counts) -> SourceMetadata:
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


def _remove_others(job: Job, names: set[str]) -> None:
    for path in shards_in(job.out, job.name):
        if path.name not in names and is_ours(job, path):
            path.unlink()
            path.with_suffix(".jsonl").unlink(missing_ok=True)


def _move(job: Job, shard: CleanShard, stem: Path) -> None:
    for waiting, name, _, _ in _files(shard, stem):
        if waiting.is_file():
            waiting.replace(job.out / name)


def _tidy(job: Job, finishings: Sequence[Finishing]) -> None:
    """Texts of the passes are not needed any more, nor is anything of units that are no longer there."""
    used = {finishing.files for finishing in finishings}
    numbers = {finishing.files.number for finishing in finishings}
    (job.state / "input").unlink(missing_ok=True)  # standard input
    for path in (*job.state.iterdir(), *(job.state / "lines").glob("*")):
        number = path.name[:5]
        if not number.isdecimal():
            continue
        files = UnitFiles(path.parent, int(number))
        is_first_pass = path.parent == job.state and files.number in numbers
        if path == files.text or not (files in used or is_first_pass):
            path.unlink(missing_ok=True)


def reports_in(out: Path) -> CorpusReport:
    """What is known of all sources whose clean text is in `out`."""
    found = []
    for path in sorted((out / STATE_FOLDER).glob(f"*/{_REPORT}")):
        report = read_marker(path, SourceReport)
        if report is not None and (out / f"{report.source}.json").is_file():
            found.append(report)
    return CorpusReport(sources=tuple(found))
