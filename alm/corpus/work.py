"""The first pass over one unit: read, normalise, filter, and note what deduplication needs to know.

Runs in whichever process the engine chooses, writes its result beside those of the other units and last a marker,
so a unit that was finished once is not done again. Nothing here depends on any other unit.
"""

from __future__ import annotations

import contextlib
import json
import time
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm import artifacts, kinds
from alm.config.base import Config
from alm.corpus.config import SourceConfig
from alm.corpus.counts import Counts, Tallies, printable
from alm.corpus.document import Document, Dropped
from alm.corpus.draft import Draft, Drop
from alm.corpus.normalize import Normalized, normalize
from alm.corpus.records import record_of
from alm.corpus.units import PlannedUnit
from alm.events import Event, Listener
from alm.files import atomic, write_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TELL_SECONDS = 1.0
_LOOK_EVERY = 64
_SIGNED_CHARACTERS = 1 << 18
DIGEST_BYTES = 32


@dataclass(frozen=True)
class UnitProgressed(Event):
    """What unit `number` has read so far, in UTF-8 bytes."""

    number: int
    documents: int
    bytes: int
    bytes_kept: int


class Marker(Config):
    """`NNNNN.json`: the promise that the first pass over a unit is whole.

    `capped` is the (limit, max_bytes) at which it stopped early, or None when it read everything.
    """

    key: str
    documents: int
    text_bytes: int
    text_sha256: str
    capped: tuple[int | None, int | None] | None
    counts: Counts


@dataclass(frozen=True)
class UnitFiles:
    """Where a unit keeps what, in the state folder of its source."""

    folder: Path
    number: int

    def path(self, ending: str) -> Path:
        """`NNNNN` and `ending`."""
        return self.folder / f"{self.number:05d}{ending}"

    @property
    def marker(self) -> Path:
        """Written last."""
        return self.path(".json")

    @property
    def text(self) -> Path:
        """The records of the documents that passed the filters; gone once the unit is published."""
        return self.path(".txt")

    @property
    def digests(self) -> Path:
        """SHA-256 of each document."""
        return self.path(".sha256")

    @property
    def sizes(self) -> Path:
        """UTF-8 bytes of each document, before and after normalisation."""
        return self.path(".sizes.npy")

    @property
    def bands(self) -> Path:
        """MinHash keys of the documents that are compared with others."""
        return self.path(".bands.npy")

    @property
    def banded(self) -> Path:
        """Which documents these are."""
        return self.path(".banded.npy")

    @property
    def details(self) -> Path:
        """Origin of each document, and what normalisation changed in those that it did change."""
        return self.path(".details.json")


@dataclass(frozen=True)
class UnitWork:
    """One unit to do. `key` says what its result is a function of."""

    source: SourceConfig
    unit: PlannedUnit
    key: str
    revision: str | None
    folder: Path

    @property
    def files(self) -> UnitFiles:
        """Where the result goes."""
        return UnitFiles(self.folder, self.unit.number)

    @property
    def cap(self) -> tuple[int | None, int | None]:
        """No unit needs to give more than the whole source may."""
        return self.source.limit, self.source.max_bytes

    def finished(self) -> Marker | None:
        """The marker, if the work was done with this key and its text is still there."""
        marker = read_marker(self.files.marker, Marker)
        if marker is None or marker.key != self.key or marker.capped not in (None, self.cap):
            return None
        return marker


def read_marker(path: Path, schema: type[artifacts.AnyMetadata]) -> artifacts.AnyMetadata | None:
    """The marker at `path`; None when there is none that can be used."""
    try:
        return schema.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def work(job: UnitWork, tell: Listener) -> Marker:
    """Do the first pass over a unit, from its input to its marker."""
    job.folder.mkdir(parents=True, exist_ok=True)
    job.files.marker.unlink(missing_ok=True)
    with ExitStack() as stack:
        made = _Pass(job, stack.enter_context(atomic(job.files.text)), tell)
        items = kinds.module_of(job.source).read(
            job.source, [part.part() for part in job.unit.parts], revision=job.revision, on_event=tell
        )
        stack.enter_context(contextlib.closing(items))
        made.take(items)
    made.save()
    marker = made.marker()
    artifacts.write(job.files.marker, marker)
    return marker


class _Chain:
    """The filters that documents of one sort pass through, with the time each took."""

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
    """The pass while it runs."""

    def __init__(self, job: UnitWork, text: Any, tell: Listener) -> None:
        self._job = job
        self._write = text.write
        self._tell = tell
        self._limit, self._max_bytes = job.cap
        self._is_capped = False
        self._tallies = Tallies()
        self._hash = sha256()
        self._text_bytes = 0
        self._digests: list[bytes] = []
        self._sizes = array("q")
        self._origins: list[str] = []
        self._changes: dict[int, dict[str, int]] = {}
        self._chains = {web: _Chain(job.source.chosen_filters(is_web=web)) for web in (False, True)}
        self._is_near = {web: job.source.finds_near_duplicates(is_web=web) for web in (False, True)}
        self._signer = _signer() if any(self._is_near.values()) else None
        self._bands: list[NDArray[np.uint64]] = []
        self._unsigned: list[str] = []
        self._unsigned_characters = 0
        self._banded: list[int] = []

    def take(self, items: Iterator[Document | Dropped]) -> None:
        """Everything of `items`, or as much as the source may give."""
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
        number = len(self._digests)
        over = self._max_bytes is not None and self._tallies.bytes_kept + bytes_before > self._max_bytes
        if number and (number == self._limit or over):
            self._is_capped = True
            return
        self._digests.append(sha256(data).digest())
        self._sizes.extend((bytes_before, len(data)))
        self._origins.append(printable(item.origin))
        if changes:
            self._changes[number] = changes
        if self._signer is not None and self._is_near[item.is_web]:
            self._unsigned.append(text)
            self._unsigned_characters += len(text)
            self._banded.append(number)
            if self._unsigned_characters >= _SIGNED_CHARACTERS:
                self._sign()
        raw = record_of(text, data)
        self._write(raw)
        self._hash.update(raw)
        self._text_bytes += len(raw)
        self._tallies.keep(bytes_before, changes)
        self._tallies.documents_out += 1
        self._tallies.bytes_out += len(data)

    def _sign(self) -> None:
        """Sign what waits for it: many texts at once are faster than one by one."""
        assert self._signer is not None
        before = time.perf_counter()
        self._bands.append(self._signer.bands_of(self._unsigned))
        self._unsigned, self._unsigned_characters = [], 0
        self._tallies.seconds["near_duplicates"] += time.perf_counter() - before

    def save(self) -> None:
        """Everything but the marker. The text is there already."""
        import numpy as np

        files = self._job.files
        write_bytes(files.digests, b"".join(self._digests))
        save_array(files.sizes, np.frombuffer(self._sizes, dtype=np.int64).reshape(-1, 2))
        details = {"origins": self._origins, "changes": self._changes}
        write_bytes(files.details, json.dumps(details, ensure_ascii=False).encode("utf-8"))
        if self._signer is not None:
            from alm.corpus.near import BANDS

            self._sign()
            bands = [part for part in self._bands if len(part)] or [np.zeros((0, BANDS), dtype=np.uint64)]
            save_array(files.bands, np.concatenate(bands))
            save_array(files.banded, np.array(self._banded, dtype=np.int64))

    def marker(self) -> Marker:
        """What the pass came to."""
        return Marker(
            key=self._job.key,
            documents=len(self._digests),
            text_bytes=self._text_bytes,
            text_sha256=self._hash.hexdigest(),
            capped=self._job.cap if self._is_capped else None,
            counts=self._tallies.counts(),
        )


def _signer() -> Any:
    from alm.corpus.near import Signer

    return Signer()


def save_array(path: Path, values: NDArray[Any]) -> None:
    """`values` as a NumPy file, atomically."""
    import numpy as np

    with atomic(path) as file:
        np.save(file, values, allow_pickle=False)
