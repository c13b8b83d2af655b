"""A run as its folder records it, read so that an unfinished, damaged or unfamiliar run still shows what it can."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from alm import formatting
from alm.artifacts import RunMetadata, Values, flat
from alm.config.yaml_files import read_yaml
from alm.errors import AlmError, InputError, absent_hint
from alm.files import holder
from alm.report.history import MARGIN, SCORE, History, number
from alm.report.series import Series, smoothed
from alm.report.tail import Tail
from alm.training.monitoring import metrics
from alm.training.monitoring.metrics import Row
from alm.training.monitoring.verdict import OVERFITTING
from alm.training.run import run_folder

T = TypeVar("T")
# With another value of one of these, a run that has stopped by itself trains on.
_CONTINUES = ("training.max_steps", "training.stop_when_worse")


@dataclass(frozen=True)
class Record:
    """A run as its files describe it. `config` includes the changes of a resume; `damaged` counts unreadable lines."""

    folder: Path
    metadata: RunMetadata
    config: Values
    step: int  # the last one in the metrics
    seconds: float  # spent in steps so far
    tokens_per_step: int | None
    skipped: tuple[int, ...]  # steps, once for each row that reports one
    columns: Mapping[str, Series]
    newest_score: Row
    samples: tuple[Row, ...]
    damaged: int

    @property
    def max_steps(self) -> int:
        """The step at which the run is finished."""
        return _max_steps(self.config, self.step)

    @property
    def is_finished(self) -> bool:
        """Whether the run reached its last step, or stopped by itself, and recorded its result."""
        result = self.metadata.result
        return result is not None and (result.step >= self.max_steps or self._has_stopped)

    @property
    def _has_stopped(self) -> bool:
        """Whether the run stopped by itself, and has neither trained on since nor been asked to."""
        result = self.metadata.result
        if result is None or result.stopped is None or result.step < self.step:
            return False
        asked = (dict(flat(values)) for values in (self.metadata.config, self.config))
        before, now = ([values.get(key) for key in _CONTINUES] for values in asked)
        return before == now

    def series(self, key: str) -> Series:
        """A value over the steps. A logged step with a missing or non-finite value is a gap."""
        return self.columns[key]

    def last(self, key: str) -> float | None:
        """The newest value, None if there is none."""
        return self.series(key).last()

    @cached_property
    def smoothed(self) -> Series:
        """The training loss without the noise of single batches."""
        return smoothed(self.series("loss"))

    def smoothed_loss(self) -> float | None:
        """The last value of the smoothed training loss."""
        return self.smoothed.last()

    def margin(self) -> float | None:
        """Half the width of the interval around the last score."""
        return self.series(MARGIN)[-1:].last()

    @cached_property
    def best_step(self) -> int | None:
        """The step of the checkpoint to use, None if that is the last one."""
        from alm.checkpoint.choose import choose  # imports PyTorch, which takes seconds

        found = choose(self.folder)
        if found is None or found.is_last or self.series(SCORE).at(found.used.step) is None:
            return None
        return found.used.step

    def used_score(self) -> tuple[float | None, float | None]:
        """The score of the checkpoint to use, and half the width of the interval around it."""
        if self.best_step is None:
            return self.last(SCORE), self.margin()
        return self.series(SCORE).at(self.best_step), self.series(MARGIN).at(self.best_step)

    def beside_best(self) -> str:
        """What to say after the score of the best checkpoint, if that is used and not the last one; else nothing."""
        if self.best_step is None:
            return ""
        last = formatting.score(self.last(SCORE), self.margin())
        return f" at step {self.best_step:,}, the best, which is used; {last} at the last step"

    def verdict(self) -> str | None:
        """The verdict on the newest validation with a forecast of the last one, if the metrics have them."""
        row = self.newest_score
        verdict = row.get("verdict")
        if not isinstance(verdict, str) or not verdict:
            return None
        ahead, low, high = (number(row.get(key)) for key in ("forecast", "forecast_low", "forecast_high"))
        if ahead is None or low is None or high is None or verdict.startswith(OVERFITTING):
            return verdict
        return f"{verdict}; forecast {formatting.forecast(ahead, low, high)} bits/byte at step {self.max_steps:,}"

    def progress(self) -> str:
        """The progress of the run, in a few words."""
        at = f"step {self.step:,} of {self.max_steps:,}"
        if self.is_finished:
            early = f" of {self.max_steps:,}, as it could only get worse" if self._has_stopped else ""
            return f"finished at step {self.step:,}{early}"
        trainer = self.trainer()
        return f"at {at}, trained by process {trainer} now" if trainer else f"not finished: at {at}"

    def typical(self, key: str) -> float | None:
        """The median over the logged steps."""
        known = self.series(key).known()
        return float(np.median(known.values)) if known else None

    def trainer(self) -> int | None:
        """The process on this machine that is training the run now; None if none is known."""
        owner = holder(self.folder / run_folder.LOCK_NAME)
        return None if owner is None else owner.pid


def _max_steps(config: Values, step: int) -> int:
    wanted = _section(config, "training").get("max_steps")
    return wanted if isinstance(wanted, int) and wanted > 0 else max(step, 1)


def _section(config: Values, name: str) -> Values:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def check(folder: Path) -> None:
    """Raise `InputError` if `folder` does not contain a run."""
    if not run_folder.exists(folder):
        raise InputError(
            f"`{folder}` does not contain a run: there is no `{run_folder.METADATA_NAME}`",
            hint=absent_hint(folder),
        )


class Watched:
    """A run whose files are read repeatedly: only new rows, and other files only if they have changed."""

    def __init__(self, folder: Path) -> None:
        check(folder)
        self.folder = folder
        self._history, self._samples = _Heard(), _Samples()
        self._tails = Tail(folder / metrics.NAME, self._history), Tail(folder / run_folder.SAMPLES_NAME, self._samples)
        self._metadata = _Kept(folder / run_folder.METADATA_NAME, lambda: run_folder.read_metadata(folder))
        self._config = _Kept(folder / run_folder.CONFIG_NAME, lambda: _config(folder))
        self._record: Record | None = None

    @property
    def rows(self) -> int:
        """Number of rows in the metrics at the last read."""
        return self._history.count

    @property
    def max_steps(self) -> int:
        """The step at which the run is finished, as far as known."""
        return _max_steps(self._config.value or self._metadata.value.config, self._history.step)

    def look(self, on_rows: Callable[[Sequence[Row]], None] = lambda rows: None) -> Record:
        """Read the run's current state; the same object if nothing has changed. `on_rows` gets the new rows."""
        # Metadata first: the result is written after the last row, so a finished run has all of its rows.
        is_new = self._metadata.look()
        is_new |= self._config.look()
        self._history.on_rows = on_rows
        for tail in self._tails:
            is_new |= tail.look()
        self._history.heard = self._history.count
        if is_new or self._record is None:
            self._record = self._now()
        return self._record

    def _now(self) -> Record:
        history, metadata = self._history, self._metadata.value
        return Record(
            folder=self.folder,
            metadata=metadata,
            config=self._config.value or metadata.config,
            step=history.step,
            seconds=history.seconds,
            tokens_per_step=history.tokens_per_step,
            skipped=tuple(history.skipped),
            columns=history.columns(),
            newest_score=history.newest_score,
            samples=tuple(self._samples),
            damaged=sum(tail.damaged for tail in self._tails),
        )


def read(folder: Path) -> Record:
    """Read the run in `folder`. Raises `InputError` if there is none, `ArtifactError` if its metadata is damaged."""
    return Watched(folder).look()


def _config(folder: Path) -> Values | None:
    """`config.yaml` without validation, so that one of another version of alm is shown too."""
    try:
        found = read_yaml(folder / run_folder.CONFIG_NAME)
    except AlmError:
        return None
    return found if isinstance(found, dict) else None


class _Kept(Generic[T]):
    """The value that `read` returns for a file, updated when the file changes."""

    def __init__(self, path: Path, read: Callable[[], T]) -> None:
        self._path, self._read = path, read
        self._seen: tuple[int, ...] | None = None
        self.value: T

    def look(self) -> bool:
        """Read the file if it has changed; return whether it has."""
        seen = self._state()
        if seen is not None and seen == self._seen:
            return False
        self.value = self._read()
        self._seen = seen
        return True

    def _state(self) -> tuple[int, ...] | None:
        try:
            state = self._path.stat()
        except OSError:
            return None
        return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


class _Heard(History):
    """A history that passes rows to `on_rows`, except for the first `heard` rows."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = 0
        self.on_rows: Callable[[Sequence[Row]], None] = lambda rows: None

    def extend(self, rows: Sequence[Row]) -> None:
        before = self.count
        super().extend(rows)
        if self.count > self.heard:
            self.on_rows(rows[max(self.heard - before, 0) :])


class _Samples(list[Row]):
    """The rows that are samples."""

    def extend(self, rows: Iterable[Row]) -> None:
        super().extend(row for row in rows if isinstance(row.get("prompt"), str) and isinstance(row.get("text"), str))


def names(records: Iterable[Record]) -> list[str]:
    """A name for each run: the end of its path, as short as keeps the names unique."""
    paths = [record.folder.resolve() for record in records]
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        found = [Path(*path.parts[-length:]).as_posix() for path in paths]
        if len(set(found)) == len(found):
            return found
    return [path.as_posix() for path in paths]
