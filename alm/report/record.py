"""What a run's folder holds, read so that an unfinished, damaged or foreign-looking run still tells what it can."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from alm.artifacts import RunMetadata, Values
from alm.config.load import read_yaml
from alm.errors import AlmError, InputError
from alm.files import is_running
from alm.report import words
from alm.report.series import Point, smoothed
from alm.report.tail import Tail
from alm.training import metrics, run
from alm.training.metrics import Row

_LOGGED = "lr"  # every row of a logged step has one
SCORE, MARGIN = "bits_per_byte", "bits_per_byte_margin"
_OF_SCORES = (SCORE, MARGIN, "validation_loss")


@dataclass(frozen=True)
class Record:
    """A run as its files tell it. `config` is the run's own, with what a resume changed; `damaged` counts lines."""

    folder: Path
    metadata: RunMetadata
    config: Values
    rows: tuple[Row, ...]
    samples: tuple[Row, ...]
    damaged: int

    @property
    def max_steps(self) -> int:
        """The step at which the run is finished."""
        wanted = _section(self.config, "training").get("max_steps")
        return wanted if isinstance(wanted, int) and wanted > 0 else max(self.step, 1)

    @property
    def step(self) -> int:
        """The last step that the metrics tell of."""
        return max((row["step"] for row in self.rows), default=0)

    @property
    def is_finished(self) -> bool:
        """Whether the run got to its last step, and said so."""
        result = self.metadata.result
        return result is not None and result.step >= self.max_steps

    @property
    def tokens_per_step(self) -> int | None:
        """Training tokens of one step, from the newest row that tells."""
        told = [row for row in self.rows if row["step"] and number(row.get("tokens")) is not None]
        return round(told[-1]["tokens"] / told[-1]["step"]) if told else None

    @property
    def seconds(self) -> float:
        """Time spent in steps so far."""
        return metrics.training_seconds(row for row in self.rows if number(row.get("step_seconds")) is not None)

    def points(self, key: str) -> list[Point]:
        """A value over the steps. A logged step without it, or with one that is not finite, is a gap."""
        among = SCORE if key in _OF_SCORES else _LOGGED
        found = {row["step"]: number(row.get(key)) for row in self.rows if among in row}
        return sorted(found.items())

    def last(self, key: str) -> float | None:
        """The newest value."""
        return next((value for _, value in reversed(self.points(key)) if value is not None), None)

    def smoothed_loss(self) -> float | None:
        """The training loss at the end, without the noise of single batches."""
        return next((value for _, value in reversed(smoothed(self.points("loss"))) if value is not None), None)

    def margin(self) -> float | None:
        """Half the width of the interval around the last score."""
        points = self.points(MARGIN)
        return points[-1][1] if points else None

    def verdict(self) -> str | None:
        """What the newest validation was judged to mean, with a forecast of the last one, where the metrics tell."""
        row = max((row for row in self.rows if SCORE in row), key=lambda row: row["step"], default={})
        verdict = row.get("verdict")
        if not isinstance(verdict, str) or not verdict:
            return None
        ahead, low, high = (number(row.get(key)) for key in ("forecast", "forecast_low", "forecast_high"))
        if ahead is None or low is None or high is None:
            return verdict
        return f"{verdict}; forecast {words.forecast(ahead, low, high)} bits/byte at step {self.max_steps:,}"

    def typical(self, key: str) -> float | None:
        """The median over the logged steps."""
        told = [value for _, value in self.points(key) if value is not None]
        return median(told) if told else None

    def trainer(self) -> int | None:
        """The process of this machine that is training the run now; None where none is known to."""
        lock = self.folder / run.LOCK_NAME
        try:
            holder = lock.read_text()
        except (OSError, ValueError):
            return None
        return int(holder) if holder.isdecimal() and is_running(int(holder)) else None


def number(value: Any) -> float | None:  # Any: JSON
    """`value` where it is a finite number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _section(config: Values, name: str) -> Values:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def check(folder: Path) -> None:
    """Raise `InputError` where `folder` holds no run."""
    if not run.exists(folder):
        raise InputError(
            f"`{folder}` holds no run: there is no `{run.METADATA_NAME}`",
            hint=f"run `ls {folder.parent}` to see what is there",
        )


class Watched:
    """A run whose files are read again and again."""

    def __init__(self, folder: Path) -> None:
        check(folder)
        self.folder = folder
        self._metrics, self._samples = Tail(folder / metrics.NAME), Tail(folder / run.SAMPLES_NAME)

    def look(self) -> Record:
        """The run as it is now; only what is new of its rows is read."""
        metadata = run.read_metadata(self.folder)  # first: what says that the run is over comes after its last row
        self._metrics.look()
        self._samples.look()
        return Record(
            folder=self.folder,
            metadata=metadata,
            config=_config(self.folder, metadata),
            rows=tuple(self._metrics.rows),
            samples=tuple(row for row in self._samples.rows if _is_sample(row)),
            damaged=self._metrics.damaged + self._samples.damaged,
        )


def read(folder: Path) -> Record:
    """The run in `folder`. Raises `InputError` where there is none, `ArtifactError` where its metadata is damaged."""
    return Watched(folder).look()


def _config(folder: Path, metadata: RunMetadata) -> Values:
    """`config.yaml` as it stands, not validated: that of another version of alm is shown too."""
    try:
        found = read_yaml(folder / run.CONFIG_NAME)
    except AlmError:
        return metadata.config
    return found if isinstance(found, dict) else metadata.config


def _is_sample(row: Row) -> bool:
    return isinstance(row.get("prompt"), str) and isinstance(row.get("text"), str)


def names(records: Iterable[Record]) -> list[str]:
    """A name for each run: the end of its path that no other one has."""
    paths = [record.folder.resolve() for record in records]
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        found = [Path(*path.parts[-length:]).as_posix() for path in paths]
        if len(set(found)) == len(found):
            return found
    return [path.as_posix() for path in paths]
