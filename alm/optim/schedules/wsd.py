"""Kind `wsd`: warm-up, stable, decay (Hu et al. 2024, MiniCPM, arXiv:2404.06395, section 4)."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from alm.optim.schedules._phases import Phases, end, fall, progress, warm_up, warmup_steps


class Config(Phases):
    """Warm-up, the peak for most of the run, and a decay at its end."""

    kind: Literal["wsd"] = "wsd"
    decay_fraction: float = Field(default=0.4, gt=0, le=1, description="Share of all steps that the decay takes.")
    decay: Literal["linear", "sqrt"] = Field(
        default="linear",
        description="Shape of the decay: linear, or 1 - sqrt(progress), which falls fast first "
        "(Hägele et al. 2024, arXiv:2405.18392).",
    )


def check(config: Config, *, max_steps: int) -> None:
    """Raise `ValueError` if warm-up and decay do not fit in a run of `max_steps`."""
    steps = end(config, max_steps=max_steps)
    decay_steps = steps - _decay_start(config, steps)
    warmup = warmup_steps(config, max_steps=max_steps)
    if warmup + decay_steps > steps:
        raise ValueError(
            f"a warm-up of {warmup:,} steps and a decay of {decay_steps:,} do not fit in {steps:,}: "
            "lower `scheduler.warmup_steps` or `scheduler.decay_fraction`"
        )


def factor(config: Config, step: int, *, max_steps: int) -> float:
    """Return the factor of the peak rate for update number `step` (from 0), in (0, 1] before the end."""
    warmup = warmup_steps(config, max_steps=max_steps)
    if step < warmup:
        return warm_up(warmup, step)
    steps = end(config, max_steps=max_steps)
    done = progress(step, start=_decay_start(config, steps), stop=steps)
    return fall(config, 1.0 - (math.sqrt(done) if config.decay == "sqrt" else done))


def _decay_start(config: Config, steps: int) -> int:
    return steps - max(1, round(config.decay_fraction * steps))
