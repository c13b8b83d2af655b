"""When a run can still be given another length: as long as its updates so far would have been the same.

A schedule that looks at the end of the run only in its last part leaves the length open until then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from alm import kinds
from alm.config.base import Config

Timed = tuple[Config, int]
"""A schedule, and the number of steps of its run."""


def agree(one: Timed, other: Timed, *, updates: int) -> bool:
    """Whether the factors of the first `updates` are the same in both."""
    first, second = _factors(one), _factors(other)
    # From the last one on: that is where two lengths differ, if they do.
    return all(first(number) == second(number) for number in reversed(range(updates)))


def common(one: Timed, other: Timed) -> int:
    """How many updates have the same factors in both, from the first one on, as long as both last."""
    shorter, first, second = min(one[1], other[1]), _factors(one), _factors(other)
    return next((number for number in range(shorter) if first(number) != second(number)), shorter)


def _factors(timed: Timed) -> Callable[[int], float]:
    schedule, max_steps = timed
    return partial(kinds.module_of(schedule).factor, schedule, max_steps=max_steps)
