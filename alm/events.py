"""What a stage reports while it runs: frozen values handed to one callable.

Library code never prints. It calls `on_event(event)`; `alm.cli` draws, a test collects, and
`ignore` is the default everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Event:
    """Anything a stage reports."""


@dataclass(frozen=True)
class Noted(Event):
    """A fact worth one line."""

    message: str


@dataclass(frozen=True)
class Warned(Event):
    """Something ignored, missing or doubtful that does not stop the stage."""

    message: str
    hint: str | None = None


@dataclass(frozen=True)
class StageBegan(Event):
    """Stage `number` of `total` begins; `command` does the same by hand."""

    number: int
    total: int
    command: str


@dataclass(frozen=True)
class Progressed(Event):
    """`done` of `total` `unit`s of `task` are behind us; `total` is None while it is unknown."""

    task: str
    done: int
    total: int | None
    unit: str


@dataclass(frozen=True)
class UnitsProgressed(Event):
    """`done` of `total` units of `task` are finished.

    `documents`, `bytes` and `bytes_kept` count what was read so far, of units in progress too, in UTF-8.
    """

    task: str
    done: int
    total: int
    documents: int
    bytes: int
    bytes_kept: int


@dataclass(frozen=True)
class Stepped(Event):
    """One optimizer step is done. From `loss` on (nats per token) values are there at log steps alone.

    `seconds_left` counts the steps, validations, checkpoints and samples still to come; `mfu` is the share of the
    device's rate of matrix products that the model's arithmetic takes; `memory_bytes` is None where it is not told.
    """

    step: int
    max_steps: int
    lr: float
    tokens_per_second: float
    loss: float | None = None
    seconds_left: float | None = None
    mfu: float | None = None
    memory_bytes: int | None = None
    data_wait_share: float | None = None


@dataclass(frozen=True)
class Validated(Event):
    """The held-out text was scored after `step` steps; `margin` is half the width of a 95% interval, if known."""

    step: int
    loss: float
    bits_per_byte: float
    margin: float | None = None


@dataclass(frozen=True)
class Judged(Event):
    """What the validation after `step` steps says of the run, in plain words.

    `forecast`, in bits per byte, is the score after the last of `max_steps` steps, between `low` and `high`; all None
    while nothing can be said of it.
    """

    step: int
    max_steps: int
    verdict: str
    forecast: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Sampled(Event):
    """The run's fixed prompts were continued after `step` steps: (prompt, continuation) for each."""

    step: int
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CheckpointSaved(Event):
    """A checkpoint of `step` is on disk, whole."""

    step: int
    path: Path


@dataclass(frozen=True)
class Resumed(Event):
    """A run continues from `step` of `max_steps`."""

    run: Path
    step: int
    max_steps: int


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener that listens to nothing."""
