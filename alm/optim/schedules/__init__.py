"""Kinds of learning-rate schedule."""

from alm.optim.schedules._lengths import agree, common
from alm.optim.schedules._phases import warmup_steps

__all__ = ["agree", "common", "warmup_steps"]
