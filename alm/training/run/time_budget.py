"""Keeps a run within its time budget: its speed is checked a few times, and the number of steps follows.

The number of steps may change while the learning rates so far do not depend on it: every step done so far is then the
same as in a run with the new number, and the run ends in the bits of one that had that number from its start.
"""

from __future__ import annotations

import time
from bisect import bisect_right

from alm.config.base import MANY, Config
from alm.distributed import World
from alm.errors import ConfigError
from alm.events import Listener, Noted
from alm.optim.schedules import agree, common, warmup_steps
from alm.training.config import RunConfig, checked
from alm.training.sizing.budget import MOST_SECONDS_BETWEEN_CHECKPOINTS
from alm.training.sizing.eta import TimeCosts, TimeLeft

# Spread evenly over the steps while the length is open, so that a machine that becomes slower is noticed in time:
# a quickstart whose steps became nine times slower at step 24 of 255 still ended on time (docs/benchmarks.md).
CHECKS = 8
# Share of the remaining steps: the speed of an otherwise idle machine varies by less.
LEAST_CHANGE = 0.05


class TimeBudget:
    """The end of a run, of `time.monotonic`, the costs of its parts as measured before it started, and the checks.

    It lives as long as the process: a run that will be late is reported once, until it is in time again.
    """

    def __init__(self, finish_by: float, costs: TimeCosts, *, world: World, on_event: Listener) -> None:
        self._finish_by, self._costs = finish_by, costs
        self._world, self._on_event = world, on_event
        self._config: RunConfig | None = None
        self._check_steps: frozenset[int] = frozenset()
        self._is_late = False

    def time_left(self) -> TimeLeft:
        """Return an estimate of the time left that knows the length of the pauses to come."""
        return TimeLeft({name: getattr(self._costs, name) for name in ("validation", "samples", "saving")})

    def new_length(self, config: RunConfig, time_left: TimeLeft, *, step: int) -> RunConfig | None:
        """Return `config` with another number of steps, if a check is due after `step` and finds one; else None.

        Ranks call it together; the main rank decides.
        """
        if config is not self._config:
            self._config, self._check_steps = config, check_steps(config)
        if step not in self._check_steps:
            return None
        return self._world.from_main(lambda: self._check(config, time_left, step))

    def _check(self, config: RunConfig, time_left: TimeLeft, step: int) -> RunConfig | None:
        each = time_left.steady()
        if each is None:
            return None
        # Twice: the run waits for its last checkpoint, and for one when its length changes.
        seconds = self._finish_by - time.monotonic() - 2 * self._costs.saving
        wanted = steps_in_time(config, time_left, step=step, step_seconds=each, seconds=seconds)
        before = config.training.max_steps
        was_late, self._is_late = self._is_late, False
        if not _is_worth_it(wanted, before, step):
            return None
        found = _often_saved(nearest_length(config, wanted, step=step), each)
        steps = found.training.max_steps
        is_changed, self._is_late = _is_worth_it(steps, before, step), steps > wanted
        if is_changed or (self._is_late and not was_late):
            message = f"a step takes {each:.3g} s now: {wanted:,} steps instead of {before:,} fit in the time"
            if self._is_late:
                late = time_left.left(found, step, step_seconds=each) - seconds
                message += f", but the learning rates so far need {steps:,}, {late:,.0f} seconds more"
            self._on_event(Noted(message))
        return found if is_changed else None


def _often_saved(config: RunConfig, step_seconds: float) -> RunConfig:
    """Return `config` with checkpoints as often as `fit_steps` promises, for steps of `step_seconds`."""
    training = config.training
    most = max(1, int(MOST_SECONDS_BETWEEN_CHECKPOINTS / step_seconds))
    interval = min(training.checkpoint_interval, most)
    return config.model_copy(update={"training": training.model_copy(update={"checkpoint_interval": interval})})


def _is_worth_it(steps: int, before: int, step: int) -> bool:
    return abs(steps - before) > LEAST_CHANGE * (before - step)


def check_steps(config: RunConfig) -> frozenset[int]:
    """Return the steps after which the speed is checked, the same on every rank.

    They are spread over the steps after which the length is still open, and are logged steps: the clock has just been
    read there.
    """
    longer = with_length(config, min(2 * config.training.max_steps, MANY))
    last = common(_schedule(config), _schedule(longer))
    every = config.logging.log_interval
    steps = {last * number // CHECKS // every * every for number in range(1, CHECKS + 1)}
    return frozenset(step for step in steps if 0 < step < config.training.max_steps)


def with_length(config: RunConfig, steps: int) -> RunConfig:
    """Return `config` with this many steps, the same warm-up, and a fixed end of the schedule moved in proportion.

    Intervals stay, and so does the share of the time of validations, samples and checkpoints. Raises `ConfigError` if
    the phases of the schedule do not fit into `steps`.
    """
    values, before = config.model_dump(mode="json"), config.training.max_steps
    values["training"]["max_steps"] = steps
    schedule = values["scheduler"]
    if schedule.get("warmup_steps") == "auto":
        schedule["warmup_steps"] = warmup_steps(config.scheduler, max_steps=before)
    if isinstance(schedule.get("total_steps"), int):
        schedule["total_steps"] = min(max(1, round(schedule["total_steps"] * steps / before)), MANY)
    return checked(values)


def nearest_length(config: RunConfig, wanted: int, *, step: int) -> RunConfig:
    """Return `config` with `wanted` steps, or the nearest number that leaves the first `step` updates unchanged."""
    found, candidate = config, _if_unchanged(config, wanted, step)
    if candidate is not None:
        return candidate
    refused = wanted
    while abs(refused - found.training.max_steps) > 1:  # bisection: `found` is possible, `refused` is not
        middle = (refused + found.training.max_steps) // 2
        candidate = _if_unchanged(config, middle, step)
        if candidate is None:
            refused = middle
        else:
            found = candidate
    return found


def _if_unchanged(config: RunConfig, steps: int, step: int) -> RunConfig | None:
    """Return `config` with `steps` steps, None if the first `step` updates would have been different."""
    try:
        other = with_length(config, steps)
    except ConfigError:
        return None
    return other if agree(_schedule(config), _schedule(other), updates=step) else None


def _schedule(config: RunConfig) -> tuple[Config, int]:
    return config.scheduler, config.training.max_steps


def steps_in_time(config: RunConfig, time_left: TimeLeft, *, step: int, step_seconds: float, seconds: float) -> int:
    """Return the number of steps with which a run ends `seconds` after `step`, at least `step` + 1."""

    def spent(steps: int) -> float:
        training = config.training.model_copy(update={"max_steps": steps})
        return time_left.left(config.model_copy(update={"training": training}), step, step_seconds=step_seconds)

    most = step + max(1, int(seconds / step_seconds))
    return step + max(1, bisect_right(range(step + 1, most + 1), seconds, key=spent))
