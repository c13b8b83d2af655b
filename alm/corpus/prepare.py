"""The stage `alm corpus prepare`: sources in, clean text with document lines and metadata out.

Each source is prepared on its own, written beside its place and moved there when it is whole, so a
failure or a kill leaves what was there before.
"""

from __future__ import annotations

import contextlib
import glob
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import cast

from alm import artifacts, kinds
from alm.artifacts import FileRecord, SourceMetadata, Tally
from alm.config.base import did_you_mean
from alm.corpus.config import CorpusConfig, SourceConfig
from alm.corpus.document import Document, Item, utf8_bytes
from alm.corpus.normalize import normalize
from alm.corpus.read import has_document_lines, has_shards
from alm.corpus.split import SplitDocument, assign, with_validation
from alm.corpus.write import ShardWriter
from alm.errors import ArtifactError, ConfigError, InputError
from alm.events import Listener, Noted, Progressed, Warned, ignore
from alm.files import publish, staging

SHARD_BYTES = 64 << 20
_REPORT_EVERY = 500


def prepare(
    config: CorpusConfig,
    *,
    out: Path,
    only: Sequence[str] = (),
    limit: int | None = None,
    force: bool = False,
    shard_bytes: int = SHARD_BYTES,
    redo: str = "alm corpus prepare",
    on_event: Listener = ignore,
) -> list[SourceMetadata]:
    """Write the clean text of every enabled source of `config` to `out`; sources up to date are kept.

    `only` names the sources to prepare, `limit` is the most documents of each. `redo` is the command
    that hints propose. Raises `ArtifactError` for a source made otherwise, unless `force`.
    """
    jobs = plan(config, out=out, only=only, limit=limit, force=force, shard_bytes=shard_bytes, redo=redo)
    prepared = [_prepare_source(job, on_event=on_event) for job in jobs]
    _warn_of_strangers(out, config, on_event)
    return prepared


@dataclass(frozen=True)
class Job:
    """One source and where it goes."""

    name: str
    source: SourceConfig
    validation_fraction: float
    out: Path
    force: bool
    shard_bytes: int
    redo: str

    @property
    def metadata_path(self) -> Path:
        """`<source>.json`."""
        return self.out / f"{self.name}.json"

    @property
    def command(self) -> str:
        """The command that prepares this source alone."""
        return f"{self.redo} --only {shlex.quote(self.name)}"

    def config_values(self) -> artifacts.Values:
        """What decides the output: not whether it is enabled."""
        source = self.source.model_dump(mode="json", exclude={"enabled"})
        return {"source": source, "validation_fraction": self.validation_fraction, "shard_bytes": self.shard_bytes}

    def inputs(self) -> tuple[FileRecord, ...]:
        """The files the source reads, hashed. Raises `ConfigError` when the output would lie among them."""
        paths = kinds.module_of(self.source).inputs(self.source)
        out = self.out.resolve()
        folders = {Path(path).resolve() for path in getattr(self.source, "paths", ()) if Path(path).is_dir()}
        if any(path.parent.resolve() == out for path in paths) or folders & {out, *out.parents}:
            raise ConfigError(
                f"the output folder `{self.out}` lies in what source `{self.name}` reads",
                hint="choose a folder beside it: `--out data/clean`",
            )
        return tuple(artifacts.record(path, relative_to=self.out) for path in paths)

    def current(self, inputs: tuple[FileRecord, ...]) -> SourceMetadata | None:
        """The metadata of the source if it is up to date; `ArtifactError` if it was made otherwise."""
        values = self.config_values()
        return artifacts.current(
            self.metadata_path, SourceMetadata, config=values, inputs=inputs, force=self.force, redo=self.command
        )


def plan(
    config: CorpusConfig,
    *,
    out: Path,
    only: Sequence[str] = (),
    limit: int | None = None,
    force: bool = False,
    shard_bytes: int = SHARD_BYTES,
    redo: str = "alm corpus prepare",
) -> list[Job]:
    """What `prepare` would do with the same arguments: one job a source."""
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
            out,
            force,
            shard_bytes,
            redo,
        )
        for name, source in chosen.items()
    ]


def _warn_of_strangers(out: Path, config: CorpusConfig, on_event: Listener) -> None:
    """Other stages read all of `out`, so a source that the configuration no longer names is told."""
    strangers = (path.stem for path in out.glob("*.json") if path.stem not in config.sources)
    for name in sorted(name for name in strangers if has_shards(out / f"{name}.json")):
        remove = f"rm {out / name}.json {out / name}-[0-9][0-9][0-9][0-9][0-9].*"
        on_event(Warned(f"`{out}` also holds `{name}`, which this corpus does not name", remove))


def _prepare_source(job: Job, *, on_event: Listener) -> SourceMetadata:
    inputs = job.inputs()
    kept = job.current(inputs)
    if kept is not None:
        on_event(Noted(f"{job.name} is up to date: {kept.documents.output:,} documents in `{job.out}`"))
        return kept
    previous = _previous(job)
    with staging(job.out, job.name) as stage:
        metadata = _write_source(job, stage, inputs, on_event)
        artifacts.write(stage / job.metadata_path.name, metadata)
        publish(stage, job.out, last=job.metadata_path.name, replaces=previous)
    return metadata


def _previous(job: Job) -> list[str]:
    """The shards and lines of this source that lie in `out` already, and are ours.

    Raises `ArtifactError` when a file that no corpus wrote has the name of one: it is somebody's text.
    """
    ours: list[str] = []
    for path in sorted(job.out.glob(f"{glob.escape(job.name)}-{'[0-9]' * 5}.txt")):
        if not has_document_lines(path):
            raise ArtifactError(
                f"`{path}` has the name of a shard of source `{job.name}`, but no corpus wrote it",
                hint="choose another folder with `--out`, or another name for the source",
            )
        ours += [path.name, path.with_suffix(".jsonl").name]
    return ours


def _write_source(job: Job, stage: Path, inputs: tuple[FileRecord, ...], on_event: Listener) -> SourceMetadata:
    opened = kinds.module_of(job.source).open_source(job.source, on_event=on_event)
    tally = _Tallies()
    documents = _limited(_clean(opened.items, tally, job.validation_fraction), job.source, tally)
    with ShardWriter(stage, job.name, job.shard_bytes) as writer, contextlib.closing(opened.items):
        for document in with_validation(documents, validation_fraction=job.validation_fraction):
            writer.add(document)
            if writer.documents % _REPORT_EVERY == 0:
                on_event(Progressed(job.name, writer.documents, job.source.limit, "documents"))
        shards = writer.close()
    if not shards:
        raise InputError(f"source `{job.name}` holds no text", hint="look at its files, or set `enabled: false` for it")
    if job.validation_fraction and not writer.validation_documents:
        on_event(Warned(f"source `{job.name}` has a single text and no line to cut it at: nothing of it is held out"))
    return SourceMetadata(
        command=job.command,
        config=job.config_values(),
        inputs=inputs,
        source=job.name,
        kind=job.source.kind,
        revision=opened.revision,
        licence=opened.licence,
        documents=tally.documents(writer.documents),
        bytes=tally.bytes(writer.bytes),
        validation_documents=writer.validation_documents,
        shards=shards,
    )


@dataclass
class _Tallies:
    """Counts that must add up: what came in, what was dropped and why, what cleaning changed."""

    documents_kept: int = 0
    bytes_kept: int = 0
    bytes_changed: Counter[str] = field(default_factory=Counter)
    documents_dropped: Counter[str] = field(default_factory=Counter)
    bytes_dropped: Counter[str] = field(default_factory=Counter)

    def keep(self, size: int, changes: dict[str, int]) -> None:
        self.documents_kept += 1
        self.bytes_kept += size
        self.bytes_changed.update(changes)

    def drop(self, reason: str, *, documents: int, size: int) -> None:
        self.documents_dropped[reason] += documents
        self.bytes_dropped[reason] += size

    def documents(self, output: int) -> Tally:
        more = output - self.documents_kept
        # A single document that was cut in two to hold something out is one more than was kept.
        changed = Counter({"held_out_part": more}) if more else Counter()
        return _tally(self.documents_kept, self.documents_dropped, changed, output)

    def bytes(self, output: int) -> Tally:
        return _tally(self.bytes_kept, self.bytes_dropped, self.bytes_changed, output)


def _tally(kept: int, dropped: Counter[str], changed: Counter[str], output: int) -> Tally:
    reasons = {reason: number for reason, number in sorted(dropped.items()) if number}
    total = kept + sum(reasons.values())
    return Tally(input=total, kept=kept, dropped=reasons, changed=dict(sorted(changed.items())), output=output)


@dataclass(frozen=True)
class _Cleaned:
    """A document that may be kept, with what it will add to the counts if it is."""

    document: SplitDocument
    bytes_in: int
    changes: dict[str, int]


def _clean(items: Iterable[Item], tally: _Tallies, validation_fraction: float) -> Iterator[_Cleaned]:
    for item in items:
        if not isinstance(item, Document):
            tally.drop(item.reason, documents=item.documents, size=item.bytes)
            continue
        size = utf8_bytes(item.text)
        cleaned = normalize(item.text)
        if cleaned.text.strip():
            document = assign(cleaned.text, origin=item.origin, validation_fraction=validation_fraction)
            yield _Cleaned(document, size, cleaned.changes)
        else:
            tally.drop("empty", documents=1, size=size)


def _limited(cleaned: Iterator[_Cleaned], source: SourceConfig, tally: _Tallies) -> Iterator[SplitDocument]:
    """The documents up to `limit` and `max_bytes`, counted; at least one, however small the budget."""
    for number in count():
        if number == source.limit:
            return
        found = next(cleaned, None)
        over = source.max_bytes is not None and tally.bytes_kept + (found.bytes_in if found else 0) > source.max_bytes
        if found is None or (over and number):
            return
        tally.keep(found.bytes_in, found.changes)
        yield found.document
