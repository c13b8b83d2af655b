"""The stage `alm corpus prepare`: sources in, clean text with document lines, metadata and a report out.

Each source goes through three steps: a first pass over every unit (`work`), one decision about all documents
(`settle`), and a last pass over every unit (`finish`); then its shards are moved into place. Both passes run on any
engine, every unit leaves a marker, and what was there before stays until the end, so a kill loses at most the
units in progress.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alm import artifacts, engines, kinds
from alm.artifacts import SourceMetadata
from alm.corpus import report
from alm.corpus.config import CorpusConfig
from alm.corpus.counts import EXAMPLES
from alm.corpus.finish import FinishedMarker, Finishing, finish
from alm.corpus.job import Job, jobs_of, look
from alm.corpus.kept import Marker, UnitFiles, read_marker
from alm.corpus.lines import LinesWork, lines_work, remove_lines, settle_lines
from alm.corpus.publish import is_in_place, publish, reports_in
from alm.corpus.read import has_shards
from alm.corpus.settle import Held, Settled, settle
from alm.corpus.sources import PART_BYTES
from alm.corpus.units import Plan
from alm.corpus.work import UnitProgressed, UnitWork, work
from alm.engines import Engine
from alm.events import Event, Listener, Noted, UnitsProgressed, Warned, ignore
from alm.files import exclusive

Share = tuple[int, int]


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
    """Write the clean text of every enabled source of `config` to `out`; sources up to date are kept.

    `only` names the sources to prepare, `limit` is the most documents of each. `redo` is the command that hints
    propose. With `share` (i, n) only every n-th unit, from the i-th on, is worked on, and nothing is finished: that
    is for the next call without. Raises `ArtifactError` for a source made otherwise, unless `force`.
    """
    jobs = jobs_of(config, out=out, only=only, limit=limit, force=force, unit_bytes=unit_bytes, redo=redo)
    chosen = engine or engines.choose("serial")
    prepared = [found for job in jobs if (found := _prepare_source(job, chosen, share, on_event)) is not None]
    if share is None:
        _write_report(out)
        _warn_of_strangers(out, config, on_event)
    return prepared


def _write_report(out: Path) -> None:
    """Unless what is there says the same already."""
    found = reports_in(out)
    if found.sources and report.read(out) != found:
        report.write(found, out)


def _warn_of_strangers(out: Path, config: CorpusConfig, on_event: Listener) -> None:
    """Other stages read all of `out`, so a source that the configuration no longer names is told."""
    strangers = (path.stem for path in out.glob("*.json") if path.stem not in config.sources)
    for name in sorted(name for name in strangers if has_shards(out / f"{name}.json")):
        remove = f"rm {out / name}.json {out / name}-[0-9][0-9][0-9][0-9][0-9].*"
        on_event(Warned(f"`{out}` also holds `{name}`, which this corpus does not name", remove))


def _prepare_source(job: Job, engine: Engine, share: Share | None, on_event: Listener) -> SourceMetadata | None:
    module = kinds.module_of(job.source)
    if hasattr(module, "take_in"):  # standard input can be read but once
        job = replace(job, source=module.take_in(job.source, job.state))
    found = look(job, on_event=on_event)
    if found.current is not None:
        documents = found.current.documents.output
        on_event(Noted(f"{job.name} is up to date: {documents:,} documents in `{job.out}`"))
        return found.current
    artifacts.write(job.state / "plan.json", found.plan)
    _warn_of_little_space(job, found.plan, on_event)
    works = job.works(found.plan)
    if share is not None:
        _first_pass(job, works[share[0] :: share[1]], engine, on_event)
        on_event(Noted(f"{job.name}: {_standing(works)}; run `{job.command}` when all are done to finish"))
        return None
    with exclusive(job.state / "lock", what=f"source `{job.name}` of `{job.out}`"):
        return _make(job, found.plan, works, engine, on_event)


def _standing(works: Sequence[UnitWork]) -> str:
    done = sum(work.finished() is not None for work in works)
    return f"{done} of {len(works)} units are done"


def _warn_of_little_space(job: Job, plan: Plan, on_event: Listener) -> None:
    needed = expected_bytes(job, plan)
    free = shutil.disk_usage(job.out).free
    if needed > free:
        on_event(
            Warned(
                f"source `{job.name}` may need {needed / 1e9:,.1f} GB in `{job.out}`, where {free / 1e9:,.1f} are free",
                f"set a budget: `--set sources.{job.name}.max_bytes={free // 2}`",
            )
        )


def expected_bytes(job: Job, plan: Plan) -> int:
    """About how many bytes of clean text there will be: compressed input counts three times."""
    packed = (".gz", ".zst", ".xz", ".parquet")
    size = sum(
        part.bytes * (3 if part.name.lower().endswith(packed) else 1) for unit in plan.units for part in unit.parts
    )
    return size if job.source.max_bytes is None else min(size, job.source.max_bytes)


def _make(job: Job, plan: Plan, works: Sequence[UnitWork], engine: Engine, on_event: Listener) -> SourceMetadata:
    markers = _first_pass(job, works, engine, on_event)
    used = [_Steps(unit) for unit in _within_budget(job, works, markers)]
    if job.source.deduplicate.lines is not None:
        used = _without_repeated_lines(job, used, engine, on_event)
    settled = settle(
        job.source,
        [steps.files for steps in used],
        validation_fraction=job.validation_fraction,
        held=read_marker(job.state / "held.json", Held),
        examples=EXAMPLES,
    )
    finishings = _finishings(job, used, settled)
    finished = _last_pass(job, used, finishings, engine, on_event)
    metadata = publish(job, plan, finishings, finished, settled)
    if job.validation_fraction and not metadata.validation_documents:
        on_event(Warned(f"source `{job.name}` has a single text and no line to cut it at: nothing of it is held out"))
    return metadata


@dataclass(frozen=True)
class _Steps:
    """What makes the text of a unit: the first pass, and what takes repeated lines from it where that is wanted."""

    first: UnitWork
    lines: LinesWork | None = None

    @property
    def last(self) -> UnitWork | LinesWork:
        """The step whose result is settled."""
        return self.lines or self.first

    @property
    def files(self) -> UnitFiles:
        """Where its result is."""
        return self.last.files

    def lacks_text(self) -> bool:
        """Whether the text is gone: it was published once."""
        return not self.files.have_text(self.last.finished())


def _without_repeated_lines(job: Job, used: Sequence[_Steps], engine: Engine, on_event: Listener) -> list[_Steps]:
    deduplicate = job.source.deduplicate
    assert deduplicate.lines is not None
    repeated = settle_lines([steps.files for steps in used], least=deduplicate.lines, merges=deduplicate.exact)
    signs = any(job.source.finds_near_duplicates(is_web=web) for web in (False, True))
    found = [
        replace(steps, lines=lines_work(steps.files, key=steps.first.key, repeated=gone, signs=signs))
        for steps, gone in zip(used, repeated, strict=True)
    ]
    missing = [steps for steps in found if steps.last.finished() is None or not steps.files.have_results()]
    _make_texts(missing, engine, on_event)
    return found


def _make_texts(units: Sequence[_Steps], engine: Engine, on_event: Listener) -> None:
    """Take the steps, again where need be, at whose end the texts of `units` are there."""
    quietly = _without_progress(on_event)
    first = [s.first for s in units if not s.first.files.have_text(s.first.finished())]
    for _ in engine.map(work, first, on_event=quietly):
        pass
    for _ in engine.map(remove_lines, [s.lines for s in units if s.lines is not None], on_event=quietly):
        pass


def _first_pass(job: Job, works: Sequence[UnitWork], engine: Engine, on_event: Listener) -> dict[int, Marker]:
    """Work on what is not done yet, in order, until the budget is reached. The markers by unit number."""
    markers: dict[int, Marker] = {}
    progress = _Progress(job.name, len(works), on_event)
    begun: list[UnitWork] = []

    def pending() -> Iterator[UnitWork]:
        for unit in works:
            if _is_enough(job, works, markers):
                return
            if (done := unit.finished()) is not None and unit.files.have_results():
                markers[unit.unit.number] = done
                progress.finished(unit.unit.number, done)
                continue
            begun.append(unit)
            yield unit

    for index, marker in engine.map(work, pending(), on_event=progress):
        number = begun[index].unit.number
        markers[number] = marker
        progress.finished(number, marker)
    return markers


def _within_budget(job: Job, works: Sequence[UnitWork], markers: dict[int, Marker]) -> Iterator[UnitWork]:
    """The units, in order, that the budget reaches into."""
    documents = size = 0
    for unit in works:
        marker = markers.get(unit.unit.number)
        if marker is None or _is_full(job, documents, size):
            return
        documents += marker.documents
        size += marker.counts.bytes_kept
        yield unit
        if marker.capped is not None:
            return


def _is_full(job: Job, documents: int, size: int) -> bool:
    limit, most = job.source.limit, job.source.max_bytes
    return (limit is not None and documents >= limit) or (most is not None and documents > 0 and size >= most)


def _is_enough(job: Job, works: Sequence[UnitWork], markers: dict[int, Marker]) -> bool:
    if job.source.limit is None and job.source.max_bytes is None:
        return False
    used = [markers[unit.unit.number] for unit in _within_budget(job, works, markers)]
    if used and used[-1].capped is not None:
        return True
    return _is_full(job, sum(m.documents for m in used), sum(m.counts.bytes_kept for m in used))


def _finishings(job: Job, used: Sequence[_Steps], settled: Settled) -> list[Finishing]:
    origins = _Origins([steps.files for steps in used])
    named: dict[int, dict[int, str]] = {}
    for (unit, number), original in settled.originals.items():
        named.setdefault(unit, {})[number] = origins.of(*original)
    return [
        Finishing(job.name, steps.files, job.form, steps.last.key, fates, named.get(index, {}))
        for index, (steps, fates) in enumerate(zip(used, settled.fates, strict=True))
    ]


class _Origins:
    """Origins of documents by unit and number; a unit's are read when first asked for."""

    def __init__(self, files: Sequence[UnitFiles]) -> None:
        self._files = files
        self._read: dict[int, list[str]] = {}

    def of(self, unit: int, number: int) -> str:
        """Where the document came from."""
        if unit not in self._read:
            import json

            self._read[unit] = json.loads(self._files[unit].details.read_bytes())["origins"]
        return self._read[unit][number]


def _last_pass(
    job: Job, used: Sequence[_Steps], finishings: Sequence[Finishing], engine: Engine, on_event: Listener
) -> list[FinishedMarker]:
    """Finish what is not finished yet. The markers in the order of the units."""
    found = {index: marker for index, item in enumerate(finishings) if (marker := _finished(job, item)) is not None}
    missing = [index for index in range(len(finishings)) if index not in found]
    _make_texts([used[index] for index in missing if used[index].lacks_text()], engine, on_event)
    for done, marker in engine.map(finish, [finishings[index] for index in missing], on_event=on_event):
        found[missing[done]] = marker
    return [found[index] for index in range(len(finishings))]


def _finished(job: Job, item: Finishing) -> FinishedMarker | None:
    marker = item.finished()
    return marker if marker is not None and is_in_place(job, marker.shard, item.stem) else None


def _without_progress(on_event: Listener) -> Listener:
    return lambda event: None if isinstance(event, UnitProgressed) else on_event(event)


class _Progress:
    """Turns what single units report into how far the source is."""

    def __init__(self, name: str, total: int, on_event: Listener) -> None:
        self._name = name
        self._total = total
        self._on_event = on_event
        self._done = 0
        self._finished = (0, 0, 0)
        self._running: dict[int, tuple[int, int, int]] = {}
        self._say()  # the time begins now

    def __call__(self, event: Event) -> None:
        if isinstance(event, UnitProgressed):
            self._running[event.number] = (event.documents, event.bytes, event.bytes_kept)
            self._say()
        else:
            self._on_event(event)

    def finished(self, number: int, marker: Marker) -> None:
        """Unit `number` is done."""
        self._running.pop(number, None)
        counts = marker.counts
        of_unit = (counts.documents().input, counts.bytes().input, counts.bytes_kept)
        self._finished = _sum([self._finished, of_unit])
        self._done += 1
        self._say()

    def _say(self) -> None:
        documents, size, kept = _sum([self._finished, *self._running.values()])
        self._on_event(UnitsProgressed(self._name, self._done, self._total, documents, size, kept))


def _sum(rows: Iterable[tuple[int, int, int]]) -> tuple[int, int, int]:
    first, second, third = (sum(column) for column in zip(*rows, strict=True))
    return first, second, third
