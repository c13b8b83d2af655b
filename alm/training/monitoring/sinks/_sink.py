"""The interface of sinks, and the information they get when they are opened."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from alm.training.monitoring.metrics import OF_THE_MACHINE, Row


@dataclass(frozen=True)
class Opening:
    """The run that a sink is opened for.

    `id` belongs to the run as long as its folder exists. `step` is where the run resumes, 0 for a new run, and `rows`
    are its metrics up to there.
    """

    run: Path
    id: str
    config: dict[str, Any]  # Any: JSON
    step: int
    rows: Sequence[Row]

    @property
    def name(self) -> str:
        """Name of the run for people."""
        return self.run.resolve().name


class Sink(Protocol):
    """Receives the numbers of a step, and texts if it can show them. Any exception ends it, and the run continues."""

    where: str  # for the user: where to see the run

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Receive the numbers of one row."""
        ...

    def samples(self, step: int, texts: Sequence[tuple[str, str]]) -> None:
        """Receive prompts and their continuations."""
        ...

    def close(self) -> None:
        """Send the rest."""
        ...


class LoggedRun:
    """A run of a tracker with the interface of Weights & Biases: `log` and `finish`."""

    def __init__(self, run: Any, *, where: str) -> None:  # Any: the packages are optional
        self._run = run
        self.where = where

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def samples(self, step: int, texts: Sequence[tuple[str, str]]) -> None:
        """Do nothing: not every tracker shows long texts."""

    def close(self) -> None:
        self._run.finish()


def off_stdout() -> AbstractContextManager[object]:
    """Redirect what a library prints to stderr: stdout is for results."""
    return redirect_stdout(sys.stderr)


def named(values: Mapping[str, object]) -> dict[str, float]:
    """Return the numbers of a row of metrics, each named with a prefix for its group.

    >>> named({"step": 2, "loss": 5.5, "bits_per_byte": 2.0, "mfu": 0.25, "skipped_rows": [4]})
    {'training/loss': 5.5, 'validation/bits_per_byte': 2.0, 'machine/mfu': 0.25}
    """
    numbers = {
        key: float(value)
        for key, value in values.items()
        if key != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }
    return {f"{_group(key)}/{key}": value for key, value in numbers.items()}


def _group(key: str) -> str:
    if key in OF_THE_MACHINE:
        return "machine"
    return "validation" if key.startswith(("validation_", "bits_per_byte", "forecast")) else "training"
