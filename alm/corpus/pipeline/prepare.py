"""The stage `alm corpus prepare`: sources in, clean text with document lines, metadata and a report out.

Each source is divided into units. Three stages work on single units, on any engine: `Clean`, `DedupLines` if repeated
lines are removed, and `WriteTexts`. Before the last one, `decide` looks at all documents. At the end, `publish` moves
the shards into place. Each stage leaves a marker, so a kill loses at most the units in progress, and earlier output
stays until the end.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from alm import engines, kinds
from alm.artifacts import HoldOut, SourceMetadata
from alm.corpus import report
from alm.corpus.config import CorpusConfig
from alm.corpus.counts import EXAMPLES, Counts
from alm.corpus.pipeline.clean import Clean, UnitProgressed
from alm.corpus.pipeline.decide import Outcome, decide
from alm.corpus.pipeline.dedup_lines import DedupLines, find_repeated_lines
from alm.corpus.pipeline.job import (
    CorpusJob,
    Inspection,
    hold_out_before,
    inspect,
    jobs_of,
    name_source_in_errors,
)
from alm.corpus.pipeline.publish import publish, tidy, write_report
from alm.corpus.pipeline.unit_store import Stage, TextStage, UnitMarker, write_marker
from alm.corpus.pipeline.units import Plan
from alm.corpus.pipeline.write_texts import ShardMarker, WriteTexts
from alm.corpus.read import has_shards
from alm.corpus.sources import PART_BYTES
from alm.engines import Engine
from alm.errors import AlmError, ConfigError, shell
from alm.events import Event, Listener, Noted, UnitsProgressed, Warned, ignore
from alm.files import ensure_published, exclusive, holder
from alm.formatting import size

Share = tuple[int, int]
_PLAN_PATIENCE = 4 * 3600.0  # the first of several jobs reads and hashes all input files
_Marker = TypeVar("_Marker")


def prepare(
    config: CorpusConfig,
    *,
    out: Path,
    only: Sequence[str] = (),
    limit: int | None = None,
    force: bool = False,
    unit_bytes: int = PART_BYTES,
    redo: str = "alm corpus prepare",
    engine: Engine | None = None,
    share: Share | None = None,
    on_event: Listener = ignore,
) -> list[SourceMetadata]:
    """Write the clean text of every enabled source of `config` to `out`; keep sources that are up to date.

    `only` names the sources to prepare, `limit` is the maximum number of documents of each. Hints propose the command
    `redo`. With `share` (i, n) only the first pass runs, on every n-th unit from the i-th on; a later call without
    `share` finishes. Raises `ArtifactError` for a source made with other settings, and for a report that no corpus
    wrote, unless `force`.
    """
    jobs = jobs_of(config, out=out, only=only, limit=limit, force=force, unit_bytes=unit_bytes, redo=redo)
    chosen = engine or engines.choose("serial")
    if share is not None:
        for job in jobs:
            with name_source_in_errors(job):
                _prepare_share(job, chosen, share, on_event)
        return []
    if not force:
        report.refuse_unknown_files(out)
    prepared = []
    for job in jobs:
        # The lock is taken before anything is written.
        with name_source_in_errors(job), exclusive(job.state / "lock", what=job.what):
            _refuse_if_locked(job, *job.state.glob("share-*.lock"))
            prepared.append(_prepare_source(job, chosen, on_event))
    write_report(out, on_event)
    _warn_of_unlisted_sources(out, config, on_event)
    return prepared


def _prepare_source(job: CorpusJob, engine: Engine, on_event: Listener) -> SourceMetadata:
    ensure_published(job.out)  # first: it may remove files with the names that are written now
    module = kinds.module_of(job.source)
    if hasattr(module, "take_in"):  # standard input can be read only once
        job = replace(job, source=module.take_in(job.source, job.state))
    found = _inspect_and_plan(job, on_event)
    if found.current is None:
        _warn_of_little_space(job, found.plan, on_event)
        return _make(job, found, engine, on_event)
    on_event(Noted(f"{job.name} is up to date: {found.current.documents.output:,} documents in `{job.out}`"))
    tidy(job)
    return found.current


def _make(job: CorpusJob, found: Inspection, engine: Engine, on_event: Listener) -> SourceMetadata:
    """Run all stages of a source. Each unit is handed on as the stage that made its text."""
    hold_out = hold_out_before(job, found.published)
    units: Sequence[TextStage] = _clean(job, job.clean_stages(found.plan), engine, on_event)
    if job.source.deduplicate.lines is not None:
        units = _dedup_lines(job, units, engine, on_event)
    outcome, stages, markers = _write(job, found, units, hold_out, engine, on_event)
    if outcome.otherwise and not any(marker.counts.validation_documents for marker in markers):
        outcome, stages, markers = _write(job, found, units, outcome.otherwise, engine, on_event)
    metadata = publish(job, found, stages, markers, outcome)
    _warn_of_losses(job, Counts.summed(marker.counts for marker in markers), on_event)
    if job.validation_fraction and not metadata.validation_documents:
        on_event(Warned(f"source `{job.name}` has a single short text without a line break: nothing is held out"))
    return metadata


def _write(
    job: CorpusJob,
    found: Inspection,
    units: Sequence[TextStage],
    hold_out: HoldOut | None,
    engine: Engine,
    on_event: Listener,
) -> tuple[Outcome, list[WriteTexts], list[ShardMarker]]:
    """Decide about all documents and write the shards. Return the markers in the order of the stages."""
    outcome = decide(
        job.source,
        [unit.files for unit in units],
        validation_fraction=job.validation_fraction,
        hold_out=hold_out,
        is_chosen=found.published is not None and found.published.validation_documents > 0,
        examples=EXAMPLES,
    )
    # With `--force`, files that were published are read again, which finds damage.
    listed = {} if found.published is None or job.force else {shard.file: shard for shard in found.published.shards}
    stages = []
    for unit, decisions, originals in zip(units, outcome.decisions, outcome.originals, strict=True):
        name = f"{job.name}-{unit.files.number:05d}.{job.form}"
        stages.append(WriteTexts(job.name, job.form, unit, decisions, originals, job.out, listed.get(name)))
    markers: dict[int, ShardMarker] = {}
    _run(stages, engine, _without_progress(on_event), markers.__setitem__)
    return outcome, stages, [markers[stage.files.number] for stage in stages]


# ---- running stages -----------------------------------------------------------------------------


def _run(
    stages: Iterable[Stage[_Marker]],
    engine: Engine,
    on_event: Listener,
    on_done: Callable[[int, _Marker], None],
    *,
    on_found: Callable[[int, _Marker], None] | None = None,
) -> None:
    """Run the stages that are not finished. Call `on_done(unit number, marker)` for each stage, finished or run.

    `on_found` is called instead for those that an earlier start has finished.

    This is how a killed command resumes: a stage is finished if its marker has its key, which is a hash of the settings
    and the input, and if its files are unchanged. A stage that lacks the text of the stage before runs that again.
    """
    started: list[Stage[_Marker]] = []

    def unfinished() -> Iterator[Stage[_Marker]]:
        for stage in stages:
            if (marker := stage.finished()) is not None:
                (on_found or on_done)(stage.files.number, marker)
            else:
                started.append(stage)
                yield stage

    for index, marker in engine.map(_run_one, unfinished(), on_event=on_event):
        on_done(started[index].files.number, marker)


def _run_one(stage: Stage[_Marker], on_event: Listener) -> _Marker:
    return stage.run(on_event)


def _clean(job: CorpusJob, stages: Sequence[Clean], engine: Engine, on_event: Listener) -> Sequence[Clean]:
    """Run the first pass, unit by unit, until the budget is used up. Return the units within the budget."""
    markers: dict[int, UnitMarker] = {}
    progress = _Progress(job.name, len(stages), on_event)

    def note(number: int, marker: UnitMarker, *, is_found: bool = False) -> None:
        markers[number] = marker
        progress.finish(number, marker, is_found=is_found)

    needed = itertools.takewhile(lambda _: not _within_budget(job, stages, markers)[1], stages)
    _run(needed, engine, progress, note, on_found=partial(note, is_found=True))
    return _within_budget(job, stages, markers)[0]


def _within_budget(
    job: CorpusJob, stages: Sequence[Clean], markers: dict[int, UnitMarker]
) -> tuple[Sequence[Clean], bool]:
    """Return the units, in order, that lie at least partly within the budget, and whether that is used up."""
    limit, most = job.source.limit, job.source.max_bytes
    if limit is None and most is None:
        return stages, False
    documents = size = 0
    for index, stage in enumerate(stages):
        marker = markers.get(stage.files.number)
        if marker is None:
            return stages[:index], False
        documents += marker.documents
        size += marker.counts.bytes_kept
        is_full = (limit is not None and documents >= limit) or (most is not None and documents and size >= most)
        if is_full or marker.capped is not None:
            return stages[: index + 1], True
    return stages, False


def _dedup_lines(job: CorpusJob, units: Sequence[TextStage], engine: Engine, on_event: Listener) -> list[DedupLines]:
    deduplicate = job.source.deduplicate
    assert deduplicate.lines is not None
    files = [unit.files for unit in units]
    repeated = find_repeated_lines(files, least=deduplicate.lines, merges=deduplicate.exact)
    signs = any(job.source.finds_near_duplicates(is_web=web) for web in (False, True))
    stages = [DedupLines.after(unit, repeated=key, signs=signs) for unit, key in zip(units, repeated, strict=True)]
    _run(stages, engine, _without_progress(on_event), lambda number, marker: None)
    return stages


def _without_progress(on_event: Listener) -> Listener:
    return lambda event: None if isinstance(event, UnitProgressed) else on_event(event)


class _Progress:
    """Turns the progress of single units into the progress of the source: documents, bytes, and bytes kept."""

    def __init__(self, name: str, total: int, on_event: Listener) -> None:
        self._name = name
        self._total = total
        self._on_event = on_event
        self._done = 0
        self._finished = (0, 0, 0)
        self._before = (0, 0)  # units and bytes of earlier starts
        self._running: dict[int, tuple[int, int, int]] = {}
        self._report()  # listeners start their clock with the first event

    def __call__(self, event: Event) -> None:
        if isinstance(event, UnitProgressed):
            self._running[event.number] = (event.documents, event.bytes, event.bytes_kept)
            self._report()
        else:
            self._on_event(event)

    def finish(self, number: int, marker: UnitMarker, *, is_found: bool) -> None:
        """Count unit `number` as done, by an earlier start if `is_found`."""
        self._running.pop(number, None)
        counts = marker.counts
        self._finished = _sum(self._finished, (counts.documents().input, counts.bytes().input, counts.bytes_kept))
        self._done += 1
        if is_found:
            self._before = self._before[0] + 1, self._before[1] + counts.bytes().input
        self._report()

    def _report(self) -> None:
        counts = _sum(self._finished, *self._running.values())
        self._on_event(UnitsProgressed(self._name, self._done, self._total, *counts, *self._before))


def _sum(*rows: tuple[int, int, int]) -> tuple[int, int, int]:
    first, second, third = map(sum, zip(*rows, strict=True))
    return first, second, third


# ---- several jobs -------------------------------------------------------------------------------


def _prepare_share(job: CorpusJob, engine: Engine, share: Share, on_event: Listener) -> None:
    """Run the first pass on the units of one of several jobs. They share the plan; a later command finishes."""
    if hasattr(kinds.module_of(job.source), "take_in"):
        raise ConfigError(
            f"source `{job.name}` is standard input, which several jobs cannot share",
            hint="write it to a file, and pass that file instead",
        )
    index, count = share
    with exclusive(job.state / f"share-{index}-of-{count}.lock", what=f"share {index} of {count} of {job.what}"):
        _refuse_if_locked(job, job.state / "lock")
        with exclusive(job.state / "plan.lock", what=f"the plan of {job.what}", patience_seconds=_PLAN_PATIENCE):
            found = _inspect_and_plan(job, on_event)
        if found.current is not None:
            on_event(Noted(f"{job.name} is up to date: {found.current.documents.output:,} documents in `{job.out}`"))
            return
        _warn_of_little_space(job, found.plan, on_event)
        stages = job.clean_stages(found.plan)
        _clean(job, stages[index::count], engine, on_event)
        done = sum(stage.marker() is not None for stage in stages)
        status = f"{done} of {len(stages)} units are done"
        on_event(Noted(f"{job.name}: {status}; run `{job.command}` when all are done to finish"))


def _refuse_if_locked(job: CorpusJob, *locks: Path) -> None:
    for path in locks:
        if (owner := holder(path)) is not None:
            raise AlmError(
                f"{job.what} is being worked on by process {owner.pid}",
                hint="wait until it has ended, then run this again",
            )


def _inspect_and_plan(job: CorpusJob, on_event: Listener) -> Inspection:
    found = inspect(job, on_event=on_event)
    if not found.is_current and found.plan != found.prior:
        write_marker(job.state / "plan.json", found.plan)
    return found


# ---- warnings -----------------------------------------------------------------------------------


def _warn_of_little_space(job: CorpusJob, plan: Plan, on_event: Listener) -> None:
    needed = expected_bytes(job, plan)
    free = shutil.disk_usage(job.out).free
    if needed > free:
        on_event(
            Warned(
                f"source `{job.name}` may need {size(needed)}, but `{job.out}` has {size(free)} free",
                f"set a budget: `--set sources.{job.name}.max_bytes={free // 2}`",
            )
        )


def expected_bytes(job: CorpusJob, plan: Plan) -> int:
    """Estimate the bytes of clean text: compressed input counts three times."""
    packed = (".gz", ".zst", ".xz", ".parquet")
    size = sum(
        part.bytes * (3 if part.name.lower().endswith(packed) else 1) for unit in plan.units for part in unit.parts
    )
    return size if job.source.max_bytes is None else min(size, job.source.max_bytes)


def _warn_of_losses(job: CorpusJob, counts: Counts, on_event: Listener) -> None:
    """Report what readers found and could not put into the text, each with the first document that it concerns."""
    if counts.lost:
        said = []
        for name, number in counts.lost.items():
            first = f", first in `{counts.examples[name][0].origin}`" if name in counts.examples else ""
            said.append(f"{report.meaning(name)} ({number:,}{first})")
        hint = f"`{job.out / report.HTML_NAME}` shows examples"
        on_event(Warned(f"source `{job.name}` is prepared without: {'; '.join(said)}", hint))


def _warn_of_unlisted_sources(out: Path, config: CorpusConfig, on_event: Listener) -> None:
    """Warn of each source that is in `out` but not in the configuration: later stages read all of `out`."""
    unlisted = (path.stem for path in out.glob("*.json") if path.stem not in config.sources)
    for name in sorted(name for name in unlisted if has_shards(out / f"{name}.json")):
        named = [out / each for each in sorted(config.sources) if (out / f"{each}.json").is_file()]
        patterns = " ".join(f"{shell(path)}-*.{config.format}" for path in named)
        hint = f"to read only the others, name them: `alm pack --in {patterns}`"
        on_event(Warned(f"`{out}` also holds `{name}`, which this corpus does not list", hint))
