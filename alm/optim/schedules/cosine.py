"""Kind `cosine`: linear warm-up, then half a cosine (Loshchilov & Hutter 2017, SGDR, eq. 5, one cycle)."""

from __future__ import annotations

import math
from typing import Literal

from alm.optim.schedules._phases import Phases, check_warmup, end, fall, progress, warm_up


class Config(Phases):
    """Warm-up and cosine decay to a fraction of the peak."""

    kind: Literal["cosine"] = "cosine"


def check(config: Config, *, max_steps: int) -> None:
    """`ValueError` where the phases do not fit in a run of `max_steps`."""
    check_warmup(config)


def factor(config: Config, step: int, *, max_steps: int) -> float:
    """Multiplier of the peak rate for update number `step` (counted from 0), in (0, 1] before the end."""
    if step < config.warmup_steps:
        return warm_up(config, step)
    done = progress(step, start=config.warmup_steps, stop=end(config, max_steps=max_steps))
    return fall(config, 0.5 * (1.0 + math.cos(math.pi * done)))
