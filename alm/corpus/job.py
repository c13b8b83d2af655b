"""One source to prepare: what it reads, what it was made from before, and whether that still holds."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from alm import artifacts, kinds
from alm.artifacts import SourceMetadata
from alm.config.base import Config, did_you_mean
from alm.corpus.config import CorpusConfig, SourceConfig
from alm.corpus.finish import FinishedMarker
from alm.corpus.kept import read_marker
from alm.corpus.read import has_document_lines
from alm.corpus.sources import PART_BYTES
from alm.corpus.units import Plan, look_at, make_plan
from alm.corpus.work import UnitWork
from alm.corpus.write import FORMATS, Format
from alm.errors import ArtifactError, ConfigError
from alm.events import Listener

STATE_FOLDER = ".alm"


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
        return f"{self.redo} --only {shlex.quote(self.name)}"

    def config_values(self) -> artifacts.Values:
        """What decides the output: not whether it is enabled."""
        source = self.source.model_dump(mode="json", exclude={"enabled"})
        return {"source": source, "validation_fraction": self.validation_fraction, "format": self.form}

    def inputs(self) -> list[Path]:
        """The files the source reads. Raises `ConfigError` when the output would lie among them."""
        paths = list(kinds.module_of(self.source).inputs(self.source))
        out = self.out.resolve()
        folders = {Path(path).resolve() for path in getattr(self.source, "paths", ()) if Path(path).is_dir()}
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
        filter_files = {path.as_posix() for path in self.filter_inputs()}
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
            redo,
        )
        for name, source in chosen.items()
    ]


@dataclass(frozen=True)
class Look:
    """How a job stands: its plan, and its metadata where it is up to date."""

    plan: Plan
    current: SourceMetadata | None


def look(job: Job, *, on_event: Listener) -> Look:
    """What there is to read and whether it is done. Raises `ArtifactError` when something else was made there."""
    plan_path = job.state / "plan.json"
    prior = read_marker(plan_path, Plan)
    config = job.config_values()
    paths = job.inputs()
    files = look_at([*paths, *job.filter_inputs()], prior=prior, relative_to=job.out)
    records = tuple(file.record for file in files)
    published = _published(job)
    # What is only begun may be gone on with otherwise: units that are still the same are kept.
    if published is not None:
        _refuse_differences(job, artifacts.differences(published, config=config, inputs=records))
    same = published is not None and not job.force and {r.path for r in published.inputs} == {r.path for r in records}
    plan = prior
    if prior is None or job.force or prior.config != config or prior.files != files:
        if same and prior is None:  # the state was removed, and nothing has changed
            assert published is not None
            plan = Plan(config=config, revision=None, licence=None, planned_ns=0, files=files, units=())
        else:
            survey = kinds.module_of(job.source).survey(job.source, on_event=on_event)
            of_revision = prior if prior is not None and prior.revision == survey.revision else None
            plan = make_plan(
                config,
                survey.parts,
                files=files,
                revision=survey.revision,
                licence=survey.licence,
                prior=of_revision,
                unit_bytes=job.unit_bytes,
            )
    assert plan is not None
    if same and published is not None:
        _refuse_damage(job, published)
        return Look(plan, published)
    _refuse_strangers(job)
    return Look(plan, None)


def _published(job: Job) -> SourceMetadata | None:
    if job.force or not job.metadata_path.is_file():
        return None
    return artifacts.read(job.metadata_path, SourceMetadata, hint=f"run `{job.command} --force` to make it anew")


def _refuse_differences(job: Job, different: list[str]) -> None:
    if different:
        raise ArtifactError(
            "\n  ".join([f"`{job.metadata_path}` was made from other inputs", *different]),
            hint=f"run `{job.command} --force` to make it anew",
        )


def _refuse_damage(job: Job, published: SourceMetadata) -> None:
    faults = artifacts.absent(job.out, published.payload())
    if faults:
        raise ArtifactError(
            f"`{job.metadata_path}` is no longer true: {faults[0]}",
            hint=f"run `{job.command} --force` to make it anew",
        )


def _refuse_strangers(job: Job) -> None:
    """Refuse to write over a file that no corpus wrote: it is somebody's text."""
    for path in shards_in(job.out, job.name):
        if not is_ours(job, path):
            raise ArtifactError(
                f"`{path}` has the name of a shard of source `{job.name}`, but no corpus wrote it",
                hint="choose another folder with `--out`, or another name for the source",
            )


def shards_in(folder: Path, name: str) -> list[Path]:
    """The files that are named like a shard of source `name`."""
    stem = f"{glob.escape(name)}-{'[0-9]' * 5}"
    return sorted(path for form in FORMATS for path in folder.glob(f"{stem}.{form}"))


def is_ours(job: Job, path: Path) -> bool:
    """Whether `path`, named like a shard, is one."""
    if path.suffix == ".txt" and has_document_lines(path):
        return True
    number = path.name.removeprefix(f"{job.name}-")[:5]
    marker = read_marker(job.state / f"{number}.final.json", FinishedMarker)
    return marker is not None and marker.shard is not None and marker.shard.file == path.name
