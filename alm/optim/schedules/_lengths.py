"""Decides whether a run can still change its length: yes, while its updates so far would have been the same.

A schedule that depends on the end of the run only in its last part leaves the length open until then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from alm import kinds
from alm.config.base import Config

Timed = tuple[Config, int]
"""A schedule with the number of steps of its run."""


def agree(one: Timed, other: Timed, *, updates: int) -> bool:
    """Whether both have the same factors for the first `updates` updates."""
    first, second = _factors(one), _factors(other)
    # From the last one back, because two lengths differ there first, if at all.
    return all(first(number) == second(number) for number in reversed(range(updates)))


def common(one: Timed, other: Timed) -> int:
    """Return the number of leading updates with the same factors in both."""
    shorter, first, second = min(one[1], other[1]), _factors(one), _factors(other)
    return next((number for number in range(shorter) if first(number) != second(number)), shorter)


def _factors(timed: Timed) -> Callable[[int], float]:
    schedule, max_steps = timed
    return partial(kinds.module_of(schedule).factor, schedule, max_steps=max_steps)
