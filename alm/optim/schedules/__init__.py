"""Kinds of learning-rate schedule."""

from alm.optim.schedules._phases import warmup_steps

__all__ = ["warmup_steps"]
