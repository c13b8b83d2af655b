"""Events that a stage reports while it runs: frozen values passed to one callable.

Library code never prints. It calls `on_event(event)`; `alm.cli` displays events, a test collects them, and
`ignore` is the default.
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
    """Stage `number` of `total` begins; `command` runs the same stage alone."""

    number: int
    total: int
    command: str


@dataclass(frozen=True)
class Progressed(Event):
    """`done` of `total` `unit`s of `task` are finished; `total` is None while unknown."""

    task: str
    done: int
    total: int | None
    unit: str


@dataclass(frozen=True)
class UnitsProgressed(Event):
    """`done` of `total` units of `task` are finished.

    `documents`, `bytes` and `bytes_kept` count what was read so far, including units in progress; bytes are UTF-8.
    `done_before` and `bytes_before` count what an earlier start has done of it, which took no time now.
    """

    task: str
    done: int
    total: int
    documents: int
    bytes: int
    bytes_kept: int
    done_before: int = 0
    bytes_before: int = 0


@dataclass(frozen=True)
class TrainingBegan(Event):
    """The next step is the first of this start; `step` of `max_steps` are done."""

    step: int
    max_steps: int


@dataclass(frozen=True)
class Stepped(Event):
    """One optimizer step is done. `loss` (nats per token) and the fields after it are set at log steps only.

    Between them, `shown_loss` is that of the first step of this start and, on a CPU, of about one step a second.
    `seconds_left` covers the steps, validations, checkpoints and samples still to come. `mfu` is the model's arithmetic
    as a share of the device's measured rate of matrix products. `memory_bytes` is None if unknown.
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
    shown_loss: float | None = None


@dataclass(frozen=True)
class Validated(Event):
    """The held-out text was scored after `step` steps; `margin` is half the width of a 95% interval, if known."""

    step: int
    loss: float
    bits_per_byte: float
    margin: float | None = None


@dataclass(frozen=True)
class Judged(Event):
    """Verdict on the run after the validation at `step`, in plain words.

    `forecast` is the expected score after the last of `max_steps` steps, in bits per byte, between `low` and `high`;
    all three are None while there is no forecast.
    """

    step: int
    max_steps: int
    verdict: str
    forecast: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Sampled(Event):
    """The run's fixed prompts were continued after `step` steps; `texts` holds (prompt, continuation) pairs."""

    step: int
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CheckpointSaved(Event):
    """A complete checkpoint of `step` is on disk."""

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
    """Listener that ignores every event."""
