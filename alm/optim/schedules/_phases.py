"""Shared parts of the schedules: the warm-up, the end, and the final rate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from alm.config.base import MANY
from alm.config.base import Config as BaseConfig

WARMUP_SHARE = 0.05


class Phases(BaseConfig):
    """A linear warm-up at the start, and a final rate as a share of the peak."""

    warmup_steps: Annotated[int, Field(ge=0, le=MANY)] | Literal["auto"] = Field(
        default="auto", description="Steps over which the rate rises to its peak; auto is 5% of all steps."
    )
    total_steps: Annotated[int, Field(ge=1, le=MANY)] | Literal["auto"] = Field(
        default="auto", description="Step at which the decay ends; auto is `training.max_steps`."
    )
    final_fraction: float = Field(default=0.1, ge=0, le=1, description="Final rate as a share of the peak.")


def end(phases: Phases, *, max_steps: int) -> int:
    """Return the first step at the final rate, in a run of `max_steps`."""
    return max_steps if phases.total_steps == "auto" else phases.total_steps


def warmup_steps(schedule: BaseConfig, *, max_steps: int) -> int:
    """Return the warm-up steps in a run of `max_steps`; 0 if the schedule has none.

    A schedule need not have the other fields of `Phases`.
    """
    steps = getattr(schedule, "warmup_steps", 0)
    if steps != "auto":
        return int(steps)
    return round(WARMUP_SHARE * (end(schedule, max_steps=max_steps) if isinstance(schedule, Phases) else max_steps))


def check_warmup(phases: Phases, *, max_steps: int) -> None:
    """Raise `ValueError` if a fixed end comes before the end of the warm-up."""
    steps = warmup_steps(phases, max_steps=max_steps)
    if phases.total_steps != "auto" and steps > phases.total_steps:
        raise ValueError(
            f"a warm-up of {steps:,} steps does not fit in `total_steps` {phases.total_steps:,}: "
            "lower `scheduler.warmup_steps`"
        )


def warm_up(steps: int, step: int) -> float:
    """Return the factor of update number `step` (from 0) in a warm-up over w = `steps` steps: 1/w, 2/w .. w/w.

    It is not 0 at the first update, which would do nothing.
    """
    return (step + 1) / steps


def progress(step: int, *, start: int, stop: int) -> float:
    """Return the share of a decay from `start` to `stop` that lies before `step`, in [0, 1]."""
    return min(1.0, max(0, step - start) / max(1, stop - start))


def fall(phases: Phases, left: float) -> float:
    """Return the factor for the share `left`, from 1 to 0, of the way between the peak and the final rate."""
    return phases.final_fraction + (1.0 - phases.final_fraction) * left
