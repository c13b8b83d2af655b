"""What every sink is, and what it is told when it is opened."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from alm.training.metrics import OF_THE_MACHINE, Row


@dataclass(frozen=True)
class Opening:
    """The run that a sink is opened for.

    `id` is the run's own for as long as its folder lasts. `step` is where the run goes on from, 0 when it begins, and
    `rows` are those of its metrics up to there.
    """

    run: Path
    id: str
    config: dict[str, Any]  # Any: JSON
    step: int
    rows: Sequence[Row]

    @property
    def name(self) -> str:
        """What a person calls the run."""
        return self.run.resolve().name


class Sink(Protocol):
    """Takes the numbers of a step, and texts if it can show them. Any exception ends it, and the run goes on."""

    where: str  # for the person: where to look

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of one row."""
        ...

    def samples(self, step: int, texts: Sequence[tuple[str, str]]) -> None:
        """Prompts and what the model wrote after them."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


def off_stdout() -> AbstractContextManager[object]:
    """Stdout is for results: what a library prints there goes to stderr."""
    return redirect_stdout(sys.stderr)


def named(values: Mapping[str, object]) -> dict[str, float]:
    """The numbers of a row of metrics, each with the group that its name begins with.

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
