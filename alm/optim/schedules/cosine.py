"""Kind `cosine`: linear warm-up, then half a cosine (Loshchilov & Hutter 2017, SGDR, eq. 5, one cycle)."""

from __future__ import annotations

import math
from typing import Literal

from alm.optim.schedules._phases import Phases, check_warmup, end, fall, progress, warm_up, warmup_steps


class Config(Phases):
    """Warm-up and cosine decay to a fraction of the peak."""

    kind: Literal["cosine"] = "cosine"


def check(config: Config, *, max_steps: int) -> None:
    """Raise `ValueError` if the phases do not fit in a run of `max_steps`."""
    check_warmup(config, max_steps=max_steps)


def factor(config: Config, step: int, *, max_steps: int) -> float:
    """Return the factor of the peak rate for update number `step` (from 0), in (0, 1] before the end."""
    warmup = warmup_steps(config, max_steps=max_steps)
    if step < warmup:
        return warm_up(warmup, step)
    done = progress(step, start=warmup, stop=end(config, max_steps=max_steps))
    return fall(config, 0.5 * (1.0 + math.cos(math.pi * done)))
