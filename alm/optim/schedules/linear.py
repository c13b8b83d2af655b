"""Kind `linear`: linear warm-up, then a straight line down (Bergsma et al. 2025, arXiv:2502.15938, to zero)."""

from __future__ import annotations

from typing import Literal

from alm.optim.schedules._phases import Phases, check_warmup, end, fall, progress, warm_up, warmup_steps


class Config(Phases):
    """Warm-up and linear decay to a fraction of the peak."""

    kind: Literal["linear"] = "linear"


def check(config: Config, *, max_steps: int) -> None:
    """Raise `ValueError` if the phases do not fit in a run of `max_steps`."""
    check_warmup(config, max_steps=max_steps)


def factor(config: Config, step: int, *, max_steps: int) -> float:
    """Return the factor of the peak rate for update number `step` (from 0), in (0, 1] before the end."""
    warmup = warmup_steps(config, max_steps=max_steps)
    if step < warmup:
        return warm_up(warmup, step)
    return fall(config, 1.0 - progress(step, start=warmup, stop=end(config, max_steps=max_steps)))
