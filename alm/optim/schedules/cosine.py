"""Kind `cosine`: linear warm-up, then half a cosine (Loshchilov & Hutter 2017, SGDR, eq. 5, one cycle)."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from alm.config.base import Config as BaseConfig


class Config(BaseConfig):
    """Warm-up and cosine decay to a fraction of the peak."""

    kind: Literal["cosine"] = "cosine"
    warmup_steps: int = Field(default=100, ge=0, description="Steps over which the rate rises to its peak.")
    total_steps: int | Literal["auto"] = Field(
        default="auto", description="Step at which the decay ends; auto is `training.max_steps`."
    )
    final_fraction: float = Field(default=0.1, ge=0, le=1, description="Share of the peak that is left at the end.")


def factor(config: Config, step: int, *, max_steps: int) -> float:
    """Multiplier of the peak rate for update number `step` (counted from 0), in (0, 1].

    The first update already moves: warm-up goes 1/w, 2/w .. w/w over `warmup_steps` w.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    total = max_steps if config.total_steps == "auto" else config.total_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, total - config.warmup_steps))
    return config.final_fraction + (1.0 - config.final_fraction) * 0.5 * (1.0 + math.cos(math.pi * progress))
