"""The units of a source: groups of input parts that are processed together, chosen once and then kept.

A unit is about 64 MB of input and becomes one shard. The plan of a source is stored in `.alm/<source>/plan.json`:
an interrupted preparation continues with the same units, and inputs added later become further units
while the old ones stay unchanged.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from alm import artifacts
from alm.artifacts import FileRecord, Values
from alm.config.base import Config
from alm.corpus.document import Part
from alm.corpus.sources import PART_BYTES

UNIT_FORMAT = 1  # raise it when the same settings and input give other results, so that old units are not used
MOST_UNITS = 99_999  # what five digits in the name of a shard can hold
# A file that changed this shortly before it was hashed may change again within the same tick of its clock.
_CLOCK_TICK_NS = 2_000_000_000


class PlannedPart(Config):
    """A part of the input, with the hash of its file if that is a local file."""

    name: str
    bytes: int
    where: tuple[int, ...] = ()
    sha256: str = ""

    def part(self) -> Part:
        """Return the part without the hash."""
        return Part(self.name, self.bytes, self.where)


class PlannedUnit(Config):
    """One unit: its number, which is also its shard's, and its parts in order."""

    number: int = Field(ge=0, le=MOST_UNITS)
    parts: tuple[PlannedPart, ...]

    @property
    def bytes(self) -> int:
        """The stored size of the input."""
        return sum(part.bytes for part in self.parts)

    def key(self, decisive: Values) -> str:
        """Return the hash of all that decides the output: `decisive` values of the configuration, and the input."""
        parts = [part.model_dump(mode="json") for part in self.parts]
        value = {"format": UNIT_FORMAT, "config": decisive, "parts": parts}
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


class InputFile(Config):
    """A local file as it was when it was hashed."""

    name: str
    modified_ns: int
    record: FileRecord


class Plan(Config):
    """The input of a source, and its division into units."""

    model_config = ConfigDict(extra="ignore")

    format: Literal["alm-units"] = "alm-units"
    format_version: int = artifacts.FORMAT_VERSION
    config: Values
    revision: str | None
    licence: str | None
    planned_ns: int
    files: tuple[InputFile, ...]
    units: tuple[PlannedUnit, ...]

    def records(self) -> tuple[FileRecord, ...]:
        """Return the input files with their hashes."""
        return tuple(file.record for file in self.files)

    def is_unchanged(self, file: InputFile | None, path: Path) -> bool:
        """Whether `path` is unchanged by its size and time, without reading it."""
        if file is None:
            return False
        found = path.stat()
        is_old = file.modified_ns < self.planned_ns - _CLOCK_TICK_NS
        return is_old and (found.st_mtime_ns, found.st_size) == (file.modified_ns, file.record.bytes)


def hashed_files(paths: Sequence[Path], *, prior: Plan | None, relative_to: Path) -> tuple[InputFile, ...]:
    """Hash the files at `paths`, except those that `prior` lists and that have not changed: these keep their hash."""
    known = {file.name: file for file in prior.files} if prior else {}
    found = []
    for path in paths:
        file = known.get(artifacts.as_text(path))
        if prior is not None and file is not None and prior.is_unchanged(file, path):
            found.append(file)
        else:
            modified = path.stat().st_mtime_ns
            record = artifacts.record(path, relative_to=relative_to)
            found.append(InputFile(name=artifacts.as_text(path), modified_ns=modified, record=record))
    return tuple(found)


def make_plan(
    config: Values,
    parts: Iterable[Part],
    *,
    files: tuple[InputFile, ...],
    revision: str | None,
    licence: str | None,
    prior: Plan | None,
    unit_bytes: int = PART_BYTES,
) -> Plan:
    """Divide `parts` into units: keep those of `prior`, without parts that are gone, and add new ones for the rest."""
    hashes = {file.name: file.record.sha256 for file in files}
    wanted = [PlannedPart(name=p.name, bytes=p.bytes, where=p.where, sha256=hashes.get(p.name, "")) for p in parts]
    there = set(wanted)
    kept = [_only(unit, there) for unit in prior.units] if prior else []
    units = [unit for unit in kept if unit.parts]
    known = {part for unit in units for part in unit.parts}
    first = 1 + max((unit.number for unit in prior.units), default=-1) if prior else 0
    groups = _grouped([part for part in wanted if part not in known], unit_bytes)
    units += [PlannedUnit(number=first + index, parts=tuple(group)) for index, group in enumerate(groups)]
    return Plan(
        config=config,
        revision=revision,
        licence=licence,
        planned_ns=time.time_ns(),
        files=files,
        units=tuple(units),
    )


def _only(unit: PlannedUnit, there: set[PlannedPart]) -> PlannedUnit:
    return unit.model_copy(update={"parts": tuple(part for part in unit.parts if part in there)})


def _grouped(parts: Sequence[PlannedPart], unit_bytes: int) -> Iterator[list[PlannedPart]]:
    """Yield groups of neighbouring parts of at most `unit_bytes`; a larger part is a group of its own."""
    group: list[PlannedPart] = []
    size = 0
    for part in parts:
        if group and size + part.bytes > unit_bytes:
            yield group
            group, size = [], 0
        group.append(part)
        size += part.bytes
    if group:
        yield group
