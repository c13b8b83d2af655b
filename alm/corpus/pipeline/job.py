"""One source to prepare: its inputs, the inputs of the last preparation, and whether the output is up to date."""

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
from alm.artifacts import HoldOut, SourceMetadata
from alm.config.base import Config, did_you_mean
from alm.corpus.config import CorpusConfig, SourceConfig
from alm.corpus.paths import from_text
from alm.corpus.pipeline.clean import Clean
from alm.corpus.pipeline.unit_store import UnitFiles, read_marker
from alm.corpus.pipeline.units import InputFile, Plan, hashed_files, make_plan
from alm.corpus.pipeline.write_texts import ShardMarker
from alm.corpus.read import STATE_FOLDER, check_names, claims, has_document_lines, has_shards
from alm.corpus.sources import PART_BYTES
from alm.corpus.write import FORMATS, Format
from alm.errors import AlmError, ArtifactError, ConfigError, shell
from alm.events import Listener, Noted
from alm.files import ensure_published, hint_for

_MESSAGES = 1  # version of what is kept of messages, beside the text


@dataclass(frozen=True)
class CorpusJob:
    """One source, its settings and its output folder."""

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
        """The folder of the state that is kept between commands: plan, markers, hashes."""
        return self.out / STATE_FOLDER / self.name

    @property
    def command(self) -> str:
        """The command that prepares this source alone."""
        return f"{self.redo} --only {shell(self.name)}"

    @property
    def what(self) -> str:
        """The source, as messages name it."""
        return f"source `{self.name}` of `{self.out}`"

    def config_values(self) -> artifacts.Values:
        """Return the settings that decide the output: all but `enabled`."""
        source = self.source.model_dump(mode="json", exclude={"enabled"})
        return {"source": source, "validation_fraction": self.validation_fraction, "format": self.form}

    def inputs(self) -> list[Path]:
        """Return the files that the source reads. Raises `ConfigError` if the output would lie among them."""
        paths = list(kinds.module_of(self.source).inputs(self.source))
        out = self.out.resolve()
        folders = {path.resolve() for path in map(from_text, getattr(self.source, "paths", ())) if path.is_dir()}
        if any(path.parent.resolve() == out for path in paths) or folders & {out, *out.parents}:
            raise ConfigError(
                f"the output folder `{self.out}` is inside the input of source `{self.name}`",
                hint="choose a folder outside the input: `--out data/clean`",
            )
        return paths

    def filter_inputs(self) -> list[Path]:
        """Return the files that filters read."""
        modules = [(kinds.module_of(config), config) for config in self.filters()]
        return [path for module, config in modules if hasattr(module, "inputs") for path in module.inputs(config)]

    def filters(self) -> tuple[Config, ...]:
        """Return the filters that at least some documents of the source pass through."""
        return self.source.chosen_filters(is_web=True)

    def clean_stages(self, plan: Plan) -> list[Clean]:
        """Return the first pass of every unit."""
        filter_files = {artifacts.as_text(path) for path in self.filter_inputs()}
        # Budgets and deduplication are decided after the first pass, so changing them keeps its results.
        source = self.source.model_dump(mode="json", exclude={"enabled", "limit", "max_bytes", "deduplicate"})
        adapter = getattr(self.source, "adapter", None)
        has_messages = adapter is not None and hasattr(kinds.module_of(adapter), "conversations")
        decisive = {
            "source": source,
            "near": self.source.deduplicate.near,
            "has_lines": self.source.deduplicate.lines is not None,
            "revision": plan.revision,
            **({"messages": _MESSAGES} if has_messages else {}),
            "filter_files": {file.name: file.record.sha256 for file in plan.files if file.name in filter_files},
        }
        return [
            Clean(unit.key(decisive), UnitFiles(self.state, unit.number), self.source, unit, plan.revision)
            for unit in plan.units
        ]


def jobs_of(
    config: CorpusConfig,
    *,
    out: Path,
    only: Sequence[str] = (),
    limit: int | None = None,
    force: bool = False,
    unit_bytes: int = PART_BYTES,
    redo: str = "alm corpus prepare",
) -> list[CorpusJob]:
    """Return the jobs: one for each chosen source."""
    for name in only:
        if name not in config.sources:
            listed = ", ".join(config.sources)
            raise ConfigError(f"no source is named `{name}`{did_you_mean(name, config.sources)} (there are: {listed})")
    sources = cast("dict[str, SourceConfig]", config.sources)
    chosen = {name: s for name, s in sources.items() if (name in only if only else s.enabled)}
    if not chosen:
        raise ConfigError("no source is enabled", hint="set `enabled: true` for one, or name it with `--only`")
    return [
        CorpusJob(
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
def name_source_in_errors(job: CorpusJob) -> Iterator[None]:
    """Turn an `OSError` while a source is prepared into an `AlmError` that names the file.

    Kinds do not know the name of their source, so this fills it into their hints.
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
class Inspection:
    """The state of a job: its plan, the earlier plan, the published metadata, and whether that is up to date."""

    plan: Plan
    prior: Plan | None
    published: SourceMetadata | None
    is_current: bool

    @property
    def current(self) -> SourceMetadata | None:
        """The metadata if the source is up to date, else None."""
        return self.published if self.is_current else None


def inspect(job: CorpusJob, *, on_event: Listener) -> Inspection:
    """Survey the input and check whether it is already prepared.

    Raises `ArtifactError` if the output was made from other inputs.
    """
    ensure_published(job.out)
    prior = read_marker(job.state / "plan.json", Plan, may_lack_checksum=True)
    config = job.config_values()
    paths = job.inputs()
    published = _published(job)
    # Size and time can mislead. With `--force` every file is read again.
    known = None if job.force else prior
    files = hashed_files([*paths, *job.filter_inputs()], prior=known, relative_to=job.out)
    records = tuple(file.record for file in files)
    is_current = False
    # An unfinished source may continue with other settings: units that are still the same are kept.
    is_removed = published is not None and artifacts.all_removed(job.out, published.payload())
    if published is not None and not job.force and not is_removed:
        _refuse_differences(job, artifacts.differences(published, config=config, inputs=records))
        is_current = {r.path for r in published.inputs} == {r.path for r in records}
    if is_current:
        assert published is not None
        _refuse_damage(job, published)
        if prior is None:  # the state was removed, and nothing has changed
            plan = Plan(config=config, revision=None, licence=None, planned_ns=0, files=files, units=())
            return Inspection(plan, prior, published, True)
    else:
        _refuse_unknown_files(job, published)
        if prior is None and published is not None:
            _warn_of_a_new_order(job, on_event)
    plan = _plan(job, config, files, prior, on_event)
    return Inspection(plan, prior, published, is_current)


def _plan(
    job: CorpusJob, config: artifacts.Values, files: tuple[InputFile, ...], prior: Plan | None, on_event: Listener
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
    # Plans that differ only in their time are equal: jobs that share a source must all use the first one.
    return prior if prior is not None and prior == plan.model_copy(update={"planned_ns": prior.planned_ns}) else plan


def _warn_of_a_new_order(job: CorpusJob, on_event: Listener) -> None:
    """Report that the plan of a published source is lost. If documents are compared, the order decides which repeat."""
    said = f"`{job.state / 'plan.json'}`, which records the order of the inputs of `{job.name}`, is missing or damaged"
    source = job.source
    compares = any(source.finds_near_duplicates(is_web=web) for web in (False, True)) or source.deduplicate.lines
    if compares and not job.force:
        raise ArtifactError(
            f"{said}: the choice of duplicates, and of held-out documents, may change",
            hint=f"put the file back, or run `{job.command} --force` to choose again",
        )
    on_event(Noted(f"{said}: all of its inputs are prepared again"))


def _published(job: CorpusJob) -> SourceMetadata | None:
    """Return the existing metadata, or None. With `--force`, damaged metadata counts as absent."""
    path = job.metadata_path
    if not os.path.lexists(path):
        return None
    if not (claims(path) or has_shards(path) or next(job.state.glob("*.final.json"), None)):
        raise ArtifactError(
            f"`{path}` has the name of the metadata of source `{job.name}`, but no corpus wrote it",
            hint="choose another folder with `--out`, or another name for the source",
        )
    try:
        found = artifacts.read(path, SourceMetadata, hint=f"run `{job.command} --force` to rebuild it")
        check_names(path, found)
    except AlmError:
        if job.force:
            return None
        raise
    return found


def _refuse_differences(job: CorpusJob, different: list[str]) -> None:
    if different:
        raise ArtifactError(
            "\n  ".join([f"`{job.metadata_path}` was made from other inputs", *different]),
            hint=f"run `{job.command} --force` to rebuild it",
        )


def _refuse_damage(job: CorpusJob, published: SourceMetadata) -> None:
    faults = artifacts.absent(job.out, published.payload())
    if faults:
        raise ArtifactError(
            f"`{job.metadata_path}` no longer matches its files: {faults[0]}",
            hint=f"run `{job.command} --force` to rebuild it",
        )


def hold_out_before(job: CorpusJob, published: SourceMetadata | None) -> HoldOut | None:
    """Return the text that is held out, beyond the choice by hash, since the source was first prepared.

    It is stored in a file with a checksum, and in the metadata. Raises `ArtifactError` if neither can be read.
    """
    path = job.state / "held.json"
    found = read_marker(path, HoldOut, may_lack_checksum=True)
    if found is not None:
        return found
    if published is not None and "held" in published.model_fields_set:
        return published.held
    if os.path.lexists(path):
        raise ArtifactError(
            f"`{path}` is damaged: it records which text of `{job.name}` is held out, and `{job.metadata_path}` "
            "does not record it either",
            hint=f"put back a copy; or run `{shell('mv', path, path.with_name('held.damaged'))}`, then "
            f"`{job.command} --force`, which may hold out text that existing models were trained on",
        )
    return None


def _refuse_unknown_files(job: CorpusJob, published: SourceMetadata | None) -> None:
    """Refuse to overwrite a file that no corpus wrote: it may be the user's text."""
    for path in shards_in(job.out, job.name):
        if not is_ours(job, path, published):
            raise ArtifactError(
                f"`{path}` has the name of a shard of source `{job.name}`, but no corpus wrote it",
                hint="choose another folder with `--out`, or another name for the source",
            )


def shards_in(folder: Path, name: str) -> list[Path]:
    """Return the files named like a shard of source `name`, or like its document lines."""
    pattern = re.compile(rf"{re.escape(name)}-\d{{5}}\.(?:{'|'.join(map(re.escape, (*FORMATS, 'jsonl')))})", re.ASCII)
    return sorted(path for path in folder.glob(f"{glob.escape(name)}-*") if pattern.fullmatch(path.name))


def is_ours(job: CorpusJob, path: Path, published: SourceMetadata | None) -> bool:
    """Whether `path`, named like a shard or its document lines, belongs to a corpus: by a listing or by its content."""
    if published is not None and path.name in {file.path for file in published.payload()}:
        return True
    if path.suffix in (".txt", ".jsonl") and has_document_lines(path):
        return True
    number = path.name.removeprefix(f"{job.name}-")[:5]
    marker = read_marker(job.state / f"{number}.final.json", ShardMarker)
    return marker is not None and marker.shard is not None and path.name in (marker.shard.file, marker.shard.lines_file)
