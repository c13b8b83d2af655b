"""The first pass over one unit: read, normalise, filter, and record the data for deduplication.

It runs in any process that the engine chooses. It writes its result beside those of the other units, and a marker
last, so a finished unit is not processed again. Nothing here depends on any other unit.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from alm import kinds
from alm.config.base import Config
from alm.corpus.config import SourceConfig
from alm.corpus.counts import Tallies
from alm.corpus.document import Document, Dropped
from alm.corpus.draft import Draft, Drop
from alm.corpus.normalize import Normalized, normalize
from alm.corpus.pipeline.unit_store import Kept, Marker, UnitFiles, read_marker
from alm.corpus.pipeline.units import PlannedUnit
from alm.events import Event, Listener
from alm.files import atomic

_TELL_SECONDS = 1.0
_LOOK_EVERY = 64  # items between two looks at the clock


@dataclass(frozen=True)
class UnitProgressed(Event):
    """Progress of unit `number`: the documents and UTF-8 bytes read so far."""

    number: int
    documents: int
    bytes: int
    bytes_kept: int


@dataclass(frozen=True)
class UnitWork:
    """One unit to process. `key` is a hash of all that decides its result."""

    source: SourceConfig
    unit: PlannedUnit
    key: str
    revision: str | None
    folder: Path

    @property
    def files(self) -> UnitFiles:
        """The files of the result."""
        return UnitFiles(self.folder, self.unit.number)

    @property
    def cap(self) -> tuple[int | None, int | None]:
        """The limits of the source: no unit needs to yield more than these."""
        return self.source.limit, self.source.max_bytes

    def marker(self) -> Marker | None:
        """Return the marker if the unit was processed with this key, else None."""
        marker = read_marker(self.files.marker, Marker)
        if marker is None or marker.key != self.key or marker.capped not in (None, self.cap):
            return None
        return marker

    def finished(self) -> Marker | None:
        """Return the marker if all files that it lists exist unchanged, else None."""
        marker = self.marker()
        return marker if marker is not None and self.files.have_results(marker) else None


def work(job: UnitWork, tell: Listener) -> Marker:
    """Run the first pass over a unit, from its input to its marker."""
    job.folder.mkdir(parents=True, exist_ok=True)
    job.files.marker.unlink(missing_ok=True)  # first: an old marker must not describe files of this pass
    with ExitStack() as stack:
        made = _Pass(job, stack.enter_context(atomic(job.files.text)), tell)
        items = kinds.module_of(job.source).read(
            job.source, [part.part() for part in job.unit.parts], revision=job.revision, on_event=tell
        )
        stack.enter_context(contextlib.closing(items))
        made.take(items)
    return made.save()


class _Chain:
    """The filters for web pages or for other documents. Measures the time that each takes."""

    def __init__(self, configs: tuple[Config, ...]) -> None:
        self._filters = [(_kind(config), kinds.module_of(config).build(config)) for config in configs]
        self.is_empty = not configs

    def __call__(self, text: str, seconds: dict[str, float]) -> Draft | Drop:
        draft = Draft(text)
        before = time.perf_counter()
        for kind, judge in self._filters:
            outcome = judge(draft)
            now = time.perf_counter()
            seconds[kind] += now - before
            before = now
            if isinstance(outcome, Drop):
                return outcome
            draft = outcome
        return draft


def _kind(config: Config) -> str:
    return str(getattr(config, "kind"))  # noqa: B009 (kinds have it, the base class has not)


class _Pass:
    """The state of a pass while it runs."""

    def __init__(self, job: UnitWork, text: IO[bytes], tell: Listener) -> None:
        self._job = job
        self._tell = tell
        self._limit, self._max_bytes = job.cap
        self._is_capped = False
        self._tallies = Tallies()
        self._chains = {web: _Chain(job.source.chosen_filters(is_web=web)) for web in (False, True)}
        self._is_compared = {web: job.source.finds_near_duplicates(is_web=web) for web in (False, True)}
        # If repeated lines will be removed, `remove_lines` computes the signatures afterwards, without those lines.
        has_lines = job.source.deduplicate.lines is not None
        signs = any(self._is_compared.values()) and not has_lines
        self._kept = Kept(job.files, text, signs=signs, has_lines=has_lines)

    def take(self, items: Iterator[Document | Dropped]) -> None:
        """Process all of `items`, or stop at the limits of the source."""
        told = time.monotonic()
        started = time.perf_counter()
        for number, item in enumerate(items):
            if isinstance(item, Dropped):
                self._leave_out(item)
            else:
                self._document(item)
            if self._is_capped:
                break
            if number % _LOOK_EVERY == 0 and time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                self._tell(self._progress())
        self._tallies.seconds.update(self._kept.finish())
        inside = sum(self._tallies.seconds.values())
        self._tallies.seconds["read_and_write"] = max(0.0, time.perf_counter() - started - inside)

    def _progress(self) -> UnitProgressed:
        counts = self._tallies
        documents = counts.documents_kept + sum(counts.documents_dropped.values())
        size = counts.bytes_kept + sum(counts.bytes_dropped.values())
        return UnitProgressed(self._job.unit.number, documents, size, counts.bytes_kept)

    def _leave_out(self, item: Dropped) -> None:
        self._tallies.drop(item.reason, documents=item.documents, size=item.bytes)
        if item.origin:
            self._tallies.show(item.reason, origin=item.origin, text=item.excerpt)

    def _document(self, item: Document) -> None:
        before = time.perf_counter()
        found = normalize(item.text)
        self._tallies.seconds["normalize"] += time.perf_counter() - before
        if not found.text or found.text.isspace():
            self._drop("empty", item, found.bytes_before)
        elif found.bytes_before > self._job.source.max_document_bytes:
            self._drop("too_long", item, found.bytes_before)
        else:
            self._filtered(item, found)

    def _drop(self, reason: str, item: Document, size: int, detail: str = "") -> None:
        self._tallies.drop(reason, documents=1, size=size)
        self._tallies.show(reason, origin=item.origin, text=item.text, detail=detail)

    def _filtered(self, item: Document, found: Normalized) -> None:
        chain = self._chains[item.is_web]
        text, data, changes = found.text, found.data, found.changes
        if not chain.is_empty:
            outcome = chain(text, self._tallies.seconds)
            if isinstance(outcome, Drop):
                self._drop(outcome.reason, item, found.bytes_before, outcome.detail)
                if outcome.detail and outcome.reason.startswith("decontaminate"):
                    self._tallies.evaluation_hits[outcome.detail] += 1
                return
            if outcome.language:
                self._tallies.languages[outcome.language] += 1
            if outcome.text is not text:
                text, data = outcome.text, outcome.text.encode("utf-8")
                changes = {**changes, "filters": len(data) - len(found.data)}
        self._keep(item, found.bytes_before, text, data, changes)

    def _keep(self, item: Document, bytes_before: int, text: str, data: bytes, changes: dict[str, int]) -> None:
        over = self._max_bytes is not None and self._tallies.bytes_kept + bytes_before > self._max_bytes
        if self._kept.documents and (self._kept.documents == self._limit or over):
            self._is_capped = True
            return
        is_compared = self._is_compared[item.is_web]
        self._kept.add(
            text, data, origin=item.origin, bytes_before=bytes_before, changes=changes, is_compared=is_compared
        )
        self._tallies.keep(bytes_before, changes)
        self._tallies.documents_out += 1
        self._tallies.bytes_out += len(data)

    def save(self) -> Marker:
        """Write everything but the text, which exists already."""
        return self._kept.save(
            key=self._job.key, capped=self._job.cap if self._is_capped else None, counts=self._tallies.counts()
        )
