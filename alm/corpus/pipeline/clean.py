"""The first pass over one unit: read, normalise, filter, and record the data for deduplication.

It runs in any process that the engine chooses. Nothing here depends on any other unit.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from alm import kinds
from alm.config.base import Config
from alm.corpus.config import SourceConfig
from alm.corpus.conversations import changed, render, turns_of
from alm.corpus.counts import RunningCounts
from alm.corpus.document import REPLACED, Document, Dropped
from alm.corpus.filters import Candidate, Drop
from alm.corpus.normalize import Normalized, normalize
from alm.corpus.pipeline.unit_store import TextStage, UnitMarker, UnitWriter
from alm.corpus.pipeline.units import PlannedUnit
from alm.events import Event, Listener

_REPORT_SECONDS = 1.0
_CLOCK_EVERY = 64  # items between two looks at the clock


@dataclass(frozen=True)
class UnitProgressed(Event):
    """Progress of unit `number`: the documents and UTF-8 bytes read so far."""

    number: int
    documents: int
    bytes: int
    bytes_kept: int


@dataclass(frozen=True)
class Clean(TextStage):
    """The first pass over one unit."""

    source: SourceConfig
    unit: PlannedUnit
    revision: str | None

    @property
    def cap(self) -> tuple[int | None, int | None]:
        """The limits of the source: no unit needs to yield more than these."""
        return self.source.limit, self.source.max_bytes

    def marker(self) -> UnitMarker | None:
        """Return the marker if the unit was processed with this key, to its end or to the same limits; else None."""
        marker = super().marker()
        return marker if marker is not None and marker.capped in (None, self.cap) else None

    def run(self, on_event: Listener) -> UnitMarker:
        """Read the unit's input, clean it, and write what stays."""
        compares = any(self.source.finds_near_duplicates(is_web=web) for web in (False, True))
        has_lines = self.source.deduplicate.lines is not None
        # If repeated lines will be removed, `DedupLines` computes the signatures afterwards, without those lines.
        with UnitWriter(self.files, signs=compares and not has_lines, has_lines=has_lines) as writer:
            cleaning = _Cleaning(self, writer, on_event)
            parts = [part.part() for part in self.unit.parts]
            read = kinds.module_of(self.source).read
            with contextlib.closing(read(self.source, parts, revision=self.revision, on_event=on_event)) as items:
                cleaning.take(items)
        capped = self.cap if cleaning.is_capped else None
        return writer.save(key=self.key, capped=capped, counts=cleaning.counts.frozen())


class _Filters:
    """The filters for web pages or for other documents. Measures the time that each takes."""

    def __init__(self, configs: tuple[Config, ...]) -> None:
        self._filters = [(kinds.name_of(config), kinds.module_of(config).build(config)) for config in configs]
        self.is_empty = not configs

    def __call__(self, text: str, seconds: dict[str, float]) -> Candidate | Drop:
        candidate = Candidate(text)
        before = time.perf_counter()
        for kind, judge in self._filters:
            outcome = judge(candidate)
            now = time.perf_counter()
            seconds[kind] += now - before
            before = now
            if isinstance(outcome, Drop):
                return outcome
            candidate = outcome
        return candidate


def _normalized(item: Document) -> tuple[Document, Normalized]:
    """Clean the text of a document, or the messages of a conversation and thereby its text."""
    found = normalize(item.text)
    if item.conversation is None or not found.changes:  # each part of a clean text is clean
        return item, found
    conversation = changed(item.conversation, lambda text: normalize(text).text)
    return replace(item, conversation=conversation), _with_text(found, render(conversation), "messages")


def _with_text(found: Normalized, text: str, change: str) -> Normalized:
    """Return `found` with another text, whose difference in size counts as `change`."""
    data = text.encode("utf-8")
    if data == found.data:
        return found
    return Normalized(text, data, found.bytes_before, {**found.changes, change: len(data) - len(found.data)})


class _Cleaning:
    """The state of a pass while it runs."""

    def __init__(self, stage: Clean, writer: UnitWriter, on_event: Listener) -> None:
        self._stage = stage
        self._writer = writer
        self._on_event = on_event
        source = stage.source
        self._filters = {web: _Filters(source.chosen_filters(is_web=web)) for web in (False, True)}
        self._is_compared = {web: source.finds_near_duplicates(is_web=web) for web in (False, True)}
        self.counts = RunningCounts()
        self.is_capped = False

    def take(self, items: Iterator[Document | Dropped]) -> None:
        """Process all of `items`, or stop at the limits of the source."""
        started = reported = time.monotonic()
        for number, item in enumerate(items):
            if isinstance(item, Dropped):
                self._count_dropped(item)
            else:
                self._document(item)
            if self.is_capped:
                break
            if number % _CLOCK_EVERY == 0 and time.monotonic() - reported > _REPORT_SECONDS:
                reported = time.monotonic()
                self._on_event(self._progress())
        self.counts.seconds.update(self._writer.finish())
        inside = sum(self.counts.seconds.values())
        self.counts.seconds["read_and_write"] = max(0.0, time.monotonic() - started - inside)

    def _progress(self) -> UnitProgressed:
        counts = self.counts
        documents = counts.documents_kept + sum(counts.documents_dropped.values())
        size = counts.bytes_kept + sum(counts.bytes_dropped.values())
        return UnitProgressed(self._stage.files.number, documents, size, counts.bytes_kept)

    def _count_dropped(self, item: Dropped) -> None:
        self.counts.drop(item.reason, documents=item.documents, size=item.bytes)
        if item.origin:
            self.counts.show(item.reason, origin=item.origin, text=item.excerpt)

    def _document(self, item: Document) -> None:
        before = time.perf_counter()
        item, found = _normalized(item)
        self.counts.seconds["normalize"] += time.perf_counter() - before
        if item.lost or "surrogates" in found.changes:
            replaced = sum("\ud800" <= character <= "\udfff" for character in item.text)
            self.counts.lose((*item.lost, (REPLACED, replaced)), origin=item.origin, text=found.text)
        if not found.text or found.text.isspace():
            self._drop("empty", item, found.bytes_before)
        elif found.bytes_before > self._stage.source.max_document_bytes:
            self._drop("too_long", item, found.bytes_before)
        elif self._filters[item.is_web].is_empty:
            self._keep(item, found)
        else:
            self._filter(item, found)

    def _drop(self, reason: str, item: Document, size: int, detail: str = "") -> None:
        self.counts.drop(reason, documents=1, size=size)
        self.counts.show(reason, origin=item.origin, text=item.text, detail=detail)

    def _filter(self, item: Document, found: Normalized) -> None:
        outcome = self._filters[item.is_web](found.text, self.counts.seconds)
        if isinstance(outcome, Drop):
            self._drop(outcome.reason, item, found.bytes_before, outcome.detail)
            if outcome.detail and outcome.reason.startswith("decontaminate"):
                self.counts.evaluation_hits[outcome.detail] += 1
            return
        if outcome.language:
            self.counts.languages[outcome.language] += 1
        if outcome.text is not found.text:
            text = outcome.text
            if item.conversation is not None:
                item = replace(item, conversation=changed(item.conversation, self._filtered))
                text = render(item.conversation or ())
            found = _with_text(found, text, "filters")
        self._keep(item, found)

    def _filtered(self, text: str) -> str:
        """Return the text of a message as the filters leave it; they have judged the conversation already."""
        outcome = self._filters[False](text, self.counts.seconds)
        return text if isinstance(outcome, Drop) else outcome.text

    def _keep(self, item: Document, found: Normalized) -> None:
        limit, max_bytes = self._stage.cap
        is_over = max_bytes is not None and self.counts.bytes_kept + found.bytes_before > max_bytes
        if self._writer.documents and (self._writer.documents == limit or is_over):
            self.is_capped = True
            return
        self._writer.add(
            found.text,
            found.data,
            origin=item.origin,
            bytes_before=found.bytes_before,
            changes=found.changes,
            is_compared=self._is_compared[item.is_web],
            turns=None if item.conversation is None else turns_of(item.conversation),
        )
        self.counts.keep(found.bytes_before, found.changes, bytes_out=len(found.data))
