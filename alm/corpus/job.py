"""One source to prepare: what it reads, what it was made from before, and whether that still holds."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from alm import artifacts, kinds
from alm.artifacts import Held, SourceMetadata
from alm.config.base import Config, did_you_mean
from alm.corpus.config import CorpusConfig, SourceConfig
from alm.corpus.finish import FinishedMarker
from alm.corpus.kept import read_marker
from alm.corpus.paths import from_text
from alm.corpus.read import STATE_FOLDER, check_names, claims, has_document_lines, has_shards
from alm.corpus.sources import PART_BYTES
from alm.corpus.units import InputFile, Plan, look_at, make_plan
from alm.corpus.work import UnitWork
from alm.corpus.write import FORMATS, Format
from alm.errors import AlmError, ArtifactError, ConfigError, shell
from alm.events import Listener, Noted
from alm.files import ensure_published, hint_for


@dataclass(frozen=True)
class Job:
    """One source and where it goes."""

    name: str
    source: SourceConfig
    validation_fraction: float
    form: Format
    out: Path
    force: bool
    unit_bytes: int
    redo: str

    @property
    def metadata_path(self) -> Path:
        """`<source>.json`."""
        return self.out / f"{self.name}.json"

    @property
    def state(self) -> Path:
        """The folder of what is remembered between two times: plan, markers, hashes."""
        return self.out / STATE_FOLDER / self.name

    @property
    def command(self) -> str:
        """The command that prepares this source alone."""
        return f"{self.redo} --only {shell(self.name)}"

    @property
    def what(self) -> str:
        """The source in words."""
        return f"source `{self.name}` of `{self.out}`"

    def config_values(self) -> artifacts.Values:
        """What decides the output: not whether it is enabled."""
        source = self.source.model_dump(mode="json", exclude={"enabled"})
        return {"source": source, "validation_fraction": self.validation_fraction, "format": self.form}

    def inputs(self) -> list[Path]:
        """The files the source reads. Raises `ConfigError` when the output would lie among them."""
        paths = list(kinds.module_of(self.source).inputs(self.source))
        out = self.out.resolve()
        folders = {path.resolve() for path in map(from_text, getattr(self.source, "paths", ())) if path.is_dir()}
        if any(path.parent.resolve() == out for path in paths) or folders & {out, *out.parents}:
            raise ConfigError(
                f"the output folder `{self.out}` lies in what source `{self.name}` reads",
                hint="choose a folder beside it: `--out data/clean`",
            )
        return paths

    def filter_inputs(self) -> list[Path]:
        """The files that filters read."""
        modules = [(kinds.module_of(config), config) for config in self.filters()]
        return [path for module, config in modules if hasattr(module, "inputs") for path in module.inputs(config)]

    def filters(self) -> tuple[Config, ...]:
        """The filters that some documents of the source pass through."""
        return self.source.chosen_filters(is_web=True)

    def works(self, plan: Plan) -> list[UnitWork]:
        """The first pass of every unit."""
        filter_files = {artifacts.as_text(path) for path in self.filter_inputs()}
        source = self.source.model_dump(mode="json", exclude={"enabled", "limit", "max_bytes", "deduplicate"})
        decisive = {
            "source": source,
            "near": self.source.deduplicate.near,
            "has_lines": self.source.deduplicate.lines is not None,
            "revision": plan.revision,
            "filter_files": {file.name: file.record.sha256 for file in plan.files if file.name in filter_files},
        }
        return [UnitWork(self.source, unit, unit.key(decisive), plan.revision, self.state) for unit in plan.units]


def jobs_of(
    config: CorpusConfig,
    *,
    out: Path,
    only: Sequence[str] = (),
    limit: int | None = None,
    force: bool = False,
    unit_bytes: int = PART_BYTES,
    redo: str = "alm corpus prepare",
) -> list[Job]:
    """What there is to do: one job a source."""
    for name in only:
        if name not in config.sources:
            listed = ", ".join(config.sources)
            raise ConfigError(f"no source is named `{name}`{did_you_mean(name, config.sources)} (there are: {listed})")
    sources = cast("dict[str, SourceConfig]", config.sources)
    chosen = {name: s for name, s in sources.items() if (name in only if only else s.enabled)}
    if not chosen:
        raise ConfigError("no source is enabled", hint="set `enabled: true` for one, or name it with `--only`")
    return [
        Job(
            name,
            source.model_copy(update={"limit": limit}) if limit else source,
            config.validation_fraction,
            config.format,
            out,
            force,
            unit_bytes,
            artifacts.readable_text(redo),
        )
        for name, source in chosen.items()
    ]


@contextlib.contextmanager
def explained(job: Job) -> Iterator[None]:
    """Turn what the disk refuses while a source is prepared into an `AlmError` that names the file.

    Kinds do not know what their source is called: their hints get its name here.
    """
    try:
        yield
    except AlmError as error:
        if error.hint is not None:
            error.hint = error.hint.replace("sources.<name>.", f"sources.{job.name}.")
        raise
    except OSError as error:
        path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else job.state
        raise AlmError(
            f"source `{job.name}` cannot be prepared: `{path}`: {error.strerror or error}", hint=hint_for(error, path)
        ) from error


@dataclass(frozen=True)
class Look:
    """How a job stands: its plan, the one before, what is published, and whether that is up to date."""

    plan: Plan
    prior: Plan | None
    published: SourceMetadata | None
    is_current: bool

    @property
    def current(self) -> SourceMetadata | None:
        """The metadata, where the source is up to date."""
        return self.published if self.is_current else None


def look(job: Job, *, on_event: Listener) -> Look:
    """What there is to read and whether it is done. Raises `ArtifactError` when something else was made there."""
    with explained(job):
        return _look(job, on_event)


def _look(job: Job, on_event: Listener) -> Look:
    ensure_published(job.out)
    prior = read_marker(job.state / "plan.json", Plan, may_lack_checksum=True)
    config = job.config_values()
    paths = job.inputs()
    published = _published(job)
    # Only reading shows whether a file that looks unchanged is: that is what `--force` is for.
    known = None if job.force else prior
    files = look_at([*paths, *job.filter_inputs()], prior=known, relative_to=job.out)
    records = tuple(file.record for file in files)
    is_current = False
    # What is only begun may be continued otherwise: units that are still the same are kept.
    if published is not None and not job.force:
        _refuse_differences(job, artifacts.differences(published, config=config, inputs=records))
        is_current = {r.path for r in published.inputs} == {r.path for r in records}
    if is_current:
        assert published is not None
        _refuse_damage(job, published)
        if prior is None:  # the state was removed, and nothing has changed
            plan = Plan(config=config, revision=None, licence=None, planned_ns=0, files=files, units=())
            return Look(plan, prior, published, True)
    else:
        refuse_strangers(job, published)
        if prior is None and published is not None:
            _warn_of_a_new_order(job, on_event)
    plan = _plan(job, config, files, prior, on_event)
    return Look(plan, prior, published, is_current)


def _plan(
    job: Job, config: artifacts.Values, files: tuple[InputFile, ...], prior: Plan | None, on_event: Listener
) -> Plan:
    if prior is not None and not job.force and prior.config == config and prior.files == files:
        return prior
    survey = kinds.module_of(job.source).survey(job.source, on_event=on_event)
    plan = make_plan(
        config,
        survey.parts,
        files=files,
        revision=survey.revision,
        licence=survey.licence,
        prior=prior if prior is not None and prior.revision == survey.revision else None,
        unit_bytes=job.unit_bytes,
    )
    # The same plan at another time is the same plan: jobs that share a source all have the first one.
    return prior if prior is not None and prior == plan.model_copy(update={"planned_ns": prior.planned_ns}) else plan


def _warn_of_a_new_order(job: Job, on_event: Listener) -> None:
    """The plan of a published source is lost. Where documents are compared, their order decides who repeats whom."""
    said = f"`{job.state / 'plan.json'}`, which says in what order `{job.name}` was prepared, is missing or damaged"
    source = job.source
    compares = any(source.finds_near_duplicates(is_web=web) for web in (False, True)) or source.deduplicate.lines
    if compares and not job.force:
        raise ArtifactError(
            f"{said}: which of its documents repeat others, and are held out with them, may be decided otherwise",
            hint=f"put the file back, or run `{job.command} --force` to decide it again",
        )
    on_event(Noted(f"{said}: all of it is prepared again"))


def _published(job: Job) -> SourceMetadata | None:
    """The metadata that is there; with `--force` none that is damaged."""
    path = job.metadata_path
    if not os.path.lexists(path):
        return None
    if not (claims(path) or has_shards(path) or next(job.state.glob("*.final.json"), None)):
        raise ArtifactError(
            f"`{path}` has the name of the metadata of source `{job.name}`, but no corpus wrote it",
            hint="choose another folder with `--out`, or another name for the source",
        )
    try:
        found = artifacts.read(path, SourceMetadata, hint=f"run `{job.command} --force` to make it again")
        check_names(path, found)
    except AlmError:
        if job.force:
            return None
        raise
    return found


def _refuse_differences(job: Job, different: list[str]) -> None:
    if different:
        raise ArtifactError(
            "\n  ".join([f"`{job.metadata_path}` was made from other inputs", *different]),
            hint=f"run `{job.command} --force` to make it again",
        )


def _refuse_damage(job: Job, published: SourceMetadata) -> None:
    faults = artifacts.absent(job.out, published.payload())
    if faults:
        raise ArtifactError(
            f"`{job.metadata_path}` no longer matches its files: {faults[0]}",
            hint=f"run `{job.command} --force` to make it again",
        )


def held_before(job: Job, published: SourceMetadata | None) -> Held | None:
    """What is held out of the source beyond the hashes since it was first prepared.

    It stands in a file with a hash of itself, and in the metadata. `ArtifactError` where neither can be read.
    """
    path = job.state / "held.json"
    found = read_marker(path, Held, may_lack_checksum=True)
    if found is not None:
        return found
    if published is not None and "held" in published.model_fields_set:
        return published.held
    if os.path.lexists(path):
        raise ArtifactError(
            f"`{path}` is damaged: it remembers which text of `{job.name}` is held out, and `{job.metadata_path}` "
            "does not say it either",
            hint=f"put back a copy; or run `{shell('mv', path, path.with_name('held.damaged'))}`, then "
            f"`{job.command} --force`, which may hold out other text than models were trained without",
        )
    return None


def refuse_strangers(job: Job, published: SourceMetadata | None) -> None:
    """Refuse to write over a file that no corpus wrote: it is somebody's text."""
    for path in shards_in(job.out, job.name):
        if not is_ours(job, path, published):
            raise ArtifactError(
                f"`{path}` has the name of a shard of source `{job.name}`, but no corpus wrote it",
                hint="choose another folder with `--out`, or another name for the source",
            )


def shards_in(folder: Path, name: str) -> list[Path]:
    """What is named like a shard of source `name`, or like the document lines of one."""
    pattern = re.compile(rf"{re.escape(name)}-\d{{5}}\.(?:{'|'.join(map(re.escape, (*FORMATS, 'jsonl')))})", re.ASCII)
    return sorted(path for path in folder.glob(f"{glob.escape(name)}-*") if pattern.fullmatch(path.name))


def is_ours(job: Job, path: Path, published: SourceMetadata | None) -> bool:
    """Whether `path`, named like a shard or its document lines, is one: a corpus lists it, or it shows it itself."""
    if published is not None and path.name in {file.path for file in published.payload()}:
        return True
    if path.suffix in (".txt", ".jsonl") and has_document_lines(path):
        return True
    number = path.name.removeprefix(f"{job.name}-")[:5]
    marker = read_marker(job.state / f"{number}.final.json", FinishedMarker)
    return marker is not None and marker.shard is not None and path.name in (marker.shard.file, marker.shard.lines_file)
