"""The stage `alm corpus prepare`: sources in, clean text with document lines, metadata and a report out.

Each source goes through three steps: a first pass over every unit (`work`), one decision about all documents
(`settle`), and a last pass over every unit (`finish`). Then its shards are moved into place. Both passes run on any
engine and every unit leaves a marker. Earlier output stays until the end, so a kill loses at most the units in
progress.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from alm import engines, kinds
from alm.artifacts import SourceMetadata
from alm.corpus import report
from alm.corpus.config import CorpusConfig
from alm.corpus.counts import EXAMPLES
from alm.corpus.pipeline.clean import UnitProgressed, UnitWork, work
from alm.corpus.pipeline.decide import Settled, settle
from alm.corpus.pipeline.dedup_lines import LinesWork, lines_work, remove_lines, settle_lines
from alm.corpus.pipeline.job import Job, Look, explained, held_before, jobs_of, look
from alm.corpus.pipeline.publish import is_in_place, publish, reports_in, tidy
from alm.corpus.pipeline.unit_store import Marker, UnitFiles, write_marker
from alm.corpus.pipeline.units import Plan
from alm.corpus.pipeline.write_texts import FinishedMarker, Finishing, finish
from alm.corpus.read import STATE_FOLDER, has_shards
from alm.corpus.report import CorpusReport
from alm.corpus.sources import PART_BYTES
from alm.engines import Engine
from alm.errors import AlmError, ConfigError, InputError, shell
from alm.events import Event, Listener, Noted, UnitsProgressed, Warned, ignore
from alm.files import Owner, ensure_published, exclusive, holder

Share = tuple[int, int]
_PATIENCE = 30.0  # writing a report takes milliseconds
_PLAN_PATIENCE = 4 * 3600.0  # the first of several jobs reads and hashes all input files


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
    if share is None and not force:
        report.refuse_strangers(out)
    chosen = engine or engines.choose("serial")
    prepared = [found for job in jobs if (found := _prepare_source(job, chosen, share, on_event)) is not None]
    if share is None:
        _write_report(out, on_event)
        _warn_of_strangers(out, config, on_event)
    return prepared


def _write_report(out: Path, on_event: Listener) -> None:
    """Write the report, unless the existing one is current."""
    lock = out / STATE_FOLDER / "report.lock"
    if _is_reported(out, reports_in(out, on_event=on_event)):
        if lock.exists():  # a killed command left it; what cannot be removed harms nothing
            with contextlib.suppress(AlmError), exclusive(lock, what=f"the report of `{out}`", patience_seconds=0):
                pass
        return
    # Other processes that prepare another source write it too: the last one to write must include all sources.
    with exclusive(lock, what=f"the report of `{out}`", patience_seconds=_PATIENCE):
        found = reports_in(out, on_event=ignore)
        if not _is_reported(out, found):
            report.write(found, out)


def _is_reported(out: Path, found: CorpusReport) -> bool:
    return not found.sources or (report.read(out) == found and (out / report.HTML_NAME).is_file())


def _warn_of_strangers(out: Path, config: CorpusConfig, on_event: Listener) -> None:
    """Warn of each source that is in `out` but not in the configuration: later stages read all of `out`."""
    strangers = (path.stem for path in out.glob("*.json") if path.stem not in config.sources)
    for name in sorted(name for name in strangers if has_shards(out / f"{name}.json")):
        named = [out / each for each in sorted(config.sources) if (out / f"{each}.json").is_file()]
        patterns = " ".join(f"{shell(path)}-*.{config.format}" for path in named)
        hint = f"to read only the others, name them: `alm pack --in {patterns}`"
        on_event(Warned(f"`{out}` also holds `{name}`, which this corpus does not list", hint))


def _prepare_source(job: Job, engine: Engine, share: Share | None, on_event: Listener) -> SourceMetadata | None:
    """Prepare a source, under a lock that is taken before anything is written."""
    with explained(job):
        if share is not None:
            _prepare_share(job, engine, share, on_event)
            return None
        with exclusive(job.state / "lock", what=job.what):
            _refuse_while_shared(job)
            return _prepare_alone(job, engine, on_event)


def _prepare_alone(job: Job, engine: Engine, on_event: Listener) -> SourceMetadata:
    ensure_published(job.out)  # first: it may remove files with the names that are written now
    module = kinds.module_of(job.source)
    if hasattr(module, "take_in"):  # standard input can be read only once
        job = replace(job, source=module.take_in(job.source, job.state))
    found = _look_and_plan(job, on_event)
    if found.current is not None:
        documents = found.current.documents.output
        on_event(Noted(f"{job.name} is up to date: {documents:,} documents in `{job.out}`"))
        tidy(job)
        return found.current
    _warn_of_little_space(job, found.plan, on_event)
    return _make(job, found, engine, on_event)


def _prepare_share(job: Job, engine: Engine, share: Share, on_event: Listener) -> None:
    """Process the units of one of several jobs. The jobs share the plan; a later command finishes the source."""
    if hasattr(kinds.module_of(job.source), "take_in"):
        raise ConfigError(
            f"source `{job.name}` is standard input, which several jobs cannot share",
            hint="write it to a file, and pass that file instead",
        )
    index, count = share
    with exclusive(job.state / f"share-{index}-of-{count}.lock", what=f"share {index} of {count} of {job.what}"):
        if (owner := holder(job.state / "lock")) is not None:
            raise _busy(job, owner)
        with exclusive(job.state / "plan.lock", what=f"the plan of {job.what}", patience_seconds=_PLAN_PATIENCE):
            found = _look_and_plan(job, on_event)
        if found.current is not None:
            on_event(Noted(f"{job.name} is up to date: {found.current.documents.output:,} documents in `{job.out}`"))
            return
        _warn_of_little_space(job, found.plan, on_event)
        works = job.works(found.plan)
        _first_pass(job, works[index::count], engine, on_event)
        on_event(Noted(f"{job.name}: {_standing(works)}; run `{job.command}` when all are done to finish"))


def _refuse_while_shared(job: Job) -> None:
    for path in job.state.glob("share-*.lock"):
        if (owner := holder(path)) is not None:
            raise _busy(job, owner)


def _busy(job: Job, owner: Owner) -> AlmError:
    return AlmError(
        f"{job.what} is being worked on by process {owner.pid}", hint="wait until it has ended, then run this again"
    )


def _look_and_plan(job: Job, on_event: Listener) -> Look:
    found = look(job, on_event=on_event)
    if not found.is_current and found.plan != found.prior:
        write_marker(job.state / "plan.json", found.plan)
    return found


def _standing(works: Sequence[UnitWork]) -> str:
    done = sum(work.marker() is not None for work in works)
    return f"{done} of {len(works)} units are done"


def _warn_of_little_space(job: Job, plan: Plan, on_event: Listener) -> None:
    needed = expected_bytes(job, plan)
    free = shutil.disk_usage(job.out).free
    if needed > free:
        on_event(
            Warned(
                f"source `{job.name}` may need {needed / 1e9:,.1f} GB, but `{job.out}` has {free / 1e9:,.1f} GB free",
                f"set a budget: `--set sources.{job.name}.max_bytes={free // 2}`",
            )
        )


def expected_bytes(job: Job, plan: Plan) -> int:
    """Estimate the bytes of clean text: compressed input counts three times."""
    packed = (".gz", ".zst", ".xz", ".parquet")
    size = sum(
        part.bytes * (3 if part.name.lower().endswith(packed) else 1) for unit in plan.units for part in unit.parts
    )
    return size if job.source.max_bytes is None else min(size, job.source.max_bytes)


def _make(job: Job, found: Look, engine: Engine, on_event: Listener) -> SourceMetadata:
    held = held_before(job, found.published)
    works = job.works(found.plan)
    texts = _Texts(engine, on_event)
    markers = _first_pass(job, works, engine, on_event, made=texts.made)
    used = [_Steps(unit) for unit in _within_budget(job, works, markers)]
    if job.source.deduplicate.lines is not None:
        used = _without_repeated_lines(job, used, texts)
    settled = settle(
        job.source,
        [steps.files for steps in used],
        validation_fraction=job.validation_fraction,
        held=held,
        examples=EXAMPLES,
    )
    finishings = _finishings(job, used, settled)
    finished = _last_pass(job, found.published, used, finishings, texts, engine, on_event)
    metadata = publish(job, found, finishings, finished, settled, held)
    if job.validation_fraction and not metadata.validation_documents:
        on_event(Warned(f"source `{job.name}` has a single text without a line break to cut at: nothing is held out"))
    return metadata


@dataclass(frozen=True)
class _Steps:
    """The steps that make the text of a unit: the first pass, and the removal of repeated lines if that is enabled."""

    first: UnitWork
    lines: LinesWork | None = None

    @property
    def last(self) -> UnitWork | LinesWork:
        """The last step, whose result `settle` reads."""
        return self.lines or self.first

    @property
    def files(self) -> UnitFiles:
        """The files of its result."""
        return self.last.files


class _Texts:
    """The texts that passes made. The hash of a text from an earlier command is checked before it is used."""

    def __init__(self, engine: Engine, on_event: Listener) -> None:
        self._engine = engine
        self._on_event = _without_progress(on_event)
        self._sound: set[UnitFiles] = set()

    def have(self, step: UnitWork | LinesWork) -> bool:
        """Whether the text that `step` wrote exists unchanged. A published text has been moved away."""
        if step.files not in self._sound and step.files.have_text(step.marker()):
            self._sound.add(step.files)
        return step.files in self._sound

    def made(self, files: UnitFiles) -> None:
        """Note that this command wrote the text of `files`, so it needs no check."""
        self._sound.add(files)

    def make(self, units: Sequence[_Steps]) -> None:
        """Run the steps that make the texts of `units`, again if necessary."""
        self._take(work, [steps.first for steps in units if not self.have(steps.first)])
        self._take(remove_lines, [steps.lines for steps in units if steps.lines is not None])

    def _take(self, function: Callable[[_Step, Listener], Marker], steps: Sequence[_Step]) -> None:
        before = [step.marker() for step in steps]
        for index, marker in self._engine.map(function, steps, on_event=self._on_event):
            known, path = before[index], steps[index].files.text
            if known is not None and (known.text_sha256, known.files) != (marker.text_sha256, marker.files):
                raise InputError(
                    f"`{path}` differs from the earlier run: the input has changed since",
                    hint="run the same command again",
                )
            self.made(steps[index].files)


_Step = TypeVar("_Step", UnitWork, LinesWork)


def _without_repeated_lines(job: Job, used: Sequence[_Steps], texts: _Texts) -> list[_Steps]:
    deduplicate = job.source.deduplicate
    assert deduplicate.lines is not None
    repeated = settle_lines([steps.files for steps in used], least=deduplicate.lines, merges=deduplicate.exact)
    signs = any(job.source.finds_near_duplicates(is_web=web) for web in (False, True))
    found = [
        replace(steps, lines=lines_work(steps.files, key=steps.first.key, repeated=gone, signs=signs))
        for steps, gone in zip(used, repeated, strict=True)
    ]
    texts.make([steps for steps in found if steps.last.finished() is None])
    return found


def _first_pass(
    job: Job,
    works: Sequence[UnitWork],
    engine: Engine,
    on_event: Listener,
    made: Callable[[UnitFiles], None] = lambda files: None,
) -> dict[int, Marker]:
    """Process the units that are not done yet, in order, until the budget is reached.

    Return the markers by unit number. `made` is called for each unit that was processed.
    """
    markers: dict[int, Marker] = {}
    progress = _Progress(job.name, len(works), on_event)
    begun: list[UnitWork] = []

    def pending() -> Iterator[UnitWork]:
        for unit in works:
            if _is_enough(job, works, markers):
                return
            if (done := unit.finished()) is not None:
                markers[unit.unit.number] = done
                progress.finished(unit.unit.number, done)
                continue
            begun.append(unit)
            yield unit

    for index, marker in engine.map(work, pending(), on_event=progress):
        number = begun[index].unit.number
        made(begun[index].files)
        markers[number] = marker
        progress.finished(number, marker)
    return markers


def _within_budget(job: Job, works: Sequence[UnitWork], markers: dict[int, Marker]) -> Iterator[UnitWork]:
    """Yield the units, in order, that lie at least partly within the budget."""
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
    """Origins of documents by unit and number; those of a unit are read on first use."""

    def __init__(self, files: Sequence[UnitFiles]) -> None:
        self._files = files
        self._read: dict[int, list[str]] = {}

    def of(self, unit: int, number: int) -> str:
        """Return the place that the document came from."""
        if unit not in self._read:
            self._read[unit], _ = self._files[unit].read_details()
        return self._read[unit][number]


def _last_pass(
    job: Job,
    published: SourceMetadata | None,
    used: Sequence[_Steps],
    finishings: Sequence[Finishing],
    texts: _Texts,
    engine: Engine,
    on_event: Listener,
) -> list[FinishedMarker]:
    """Finish the units that are not finished yet. Return the markers in the order of the units."""
    found: dict[int, FinishedMarker] = {}
    for index, item in enumerate(finishings):
        marker = item.finished()
        if marker is not None and is_in_place(job, marker.shard, item.stem, published):
            found[index] = marker
    missing = [index for index in range(len(finishings)) if index not in found]
    # Publishing removes the texts of the passes, so a unit whose shard changes needs its text again.
    texts.make([used[index] for index in missing if not texts.have(used[index].last)])
    for done, marker in engine.map(finish, [finishings[index] for index in missing], on_event=on_event):
        found[missing[done]] = marker
    return [found[index] for index in range(len(finishings))]


def _without_progress(on_event: Listener) -> Listener:
    return lambda event: None if isinstance(event, UnitProgressed) else on_event(event)


class _Progress:
    """Turns the progress of single units into the progress of the source."""

    def __init__(self, name: str, total: int, on_event: Listener) -> None:
        self._name = name
        self._total = total
        self._on_event = on_event
        self._done = 0
        self._finished = (0, 0, 0)
        self._running: dict[int, tuple[int, int, int]] = {}
        self._say()  # listeners start their clock with the first event

    def __call__(self, event: Event) -> None:
        if isinstance(event, UnitProgressed):
            self._running[event.number] = (event.documents, event.bytes, event.bytes_kept)
            self._say()
        else:
            self._on_event(event)

    def finished(self, number: int, marker: Marker) -> None:
        """Count unit `number` as done."""
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
