"""Keeping a run with a budget in time: how fast it is, is looked at a few times, and how many steps it has follows.

The number of steps may change while the learning rates so far do not depend on it: then every step that is done is what
a run of the new number would have done, and the run ends in the bits of one that had that number from its beginning.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from dataclasses import dataclass

from alm.config.base import MANY, Config
from alm.distributed import World
from alm.errors import ConfigError
from alm.events import Listener, Noted
from alm.optim.schedules import agree, common, warmup_steps
from alm.training.budget import MOST_SECONDS_BETWEEN_CHECKPOINTS
from alm.training.config import RunConfig, checked
from alm.training.costs import Costs
from alm.training.pace import Pace

# Evenly over the steps in which the length is open: a machine that becomes slower in between is noticed in time.
LOOKS = 8
# Of the steps that are left: a machine that does nothing else varies by less.
WORTH_A_CHANGE = 0.05


@dataclass(frozen=True)
class Budget:
    """When a run has to end, of `time.monotonic`, and what its parts cost before it began."""

    finish_by: float
    costs: Costs

    def pace(self) -> Pace:
        """One that knows the pauses to come."""
        return Pace({name: getattr(self.costs, name) for name in ("validation", "samples", "saving")})


class Timekeeper:
    """Says after which step a run has another length: `changed` is how it goes on, None as long as it does as it is.

    Without a budget that is never. Ranks ask together; the main rank decides. It lasts as long as the process: that a
    run will be late is told once, until it is in time again.
    """

    def __init__(
        self, config: RunConfig, budget: Budget | None, pace: Pace, *, world: World, on_event: Listener
    ) -> None:
        self._budget, self._pace = budget, pace
        self._world, self._on_event = world, on_event
        self._is_late = False
        self.go_on(config)

    def go_on(self, config: RunConfig) -> None:
        """Look after the run as it is now: with `config`."""
        self._config = config
        self._steps = frozenset() if self._budget is None else looks(config)
        self.changed: RunConfig | None = None

    def __call__(self, step: int) -> bool:
        """Look, if it is time to after `step`; whether the run changes."""
        budget = self._budget
        if budget is not None and step in self._steps:
            self.changed = self._world.from_main(lambda: self._look(step, budget))
        return self.changed is not None

    def _look(self, step: int, budget: Budget) -> RunConfig | None:
        each = self._pace.steady()
        if each is None:
            return None
        # The last checkpoint is waited for, and one at a change.
        seconds = budget.finish_by - time.monotonic() - 2 * budget.costs.saving
        wanted = steps_in_time(self._config, self._pace, step=step, step_seconds=each, seconds=seconds)
        before = self._config.training.max_steps
        was_late, self._is_late = self._is_late, False
        if not _is_worth_it(wanted, before, step):
            return None
        found = _often_saved(nearest(self._config, wanted, step=step), each)
        steps = found.training.max_steps
        is_changed, self._is_late = _is_worth_it(steps, before, step), steps > wanted
        if is_changed or (self._is_late and not was_late):
            said = f"a step takes {each:.3g} s now: {wanted:,} steps instead of {before:,} fit in the time"
            late = self._pace.left(found, step, step_seconds=each) - seconds
            also = f", but the learning rates so far need {steps:,}, {late:,.0f} seconds more"
            self._on_event(Noted(said + also if self._is_late else said))
        return found if is_changed else None


def _often_saved(config: RunConfig, step_seconds: float) -> RunConfig:
    """`config` with checkpoints as often as `fitted` promises, if steps take so long."""
    training = config.training
    most = max(1, int(MOST_SECONDS_BETWEEN_CHECKPOINTS / step_seconds))
    interval = min(training.checkpoint_interval, most)
    return config.model_copy(update={"training": training.model_copy(update={"checkpoint_interval": interval})})


def _is_worth_it(steps: int, before: int, step: int) -> bool:
    return abs(steps - before) > WORTH_A_CHANGE * (before - step)


def looks(config: RunConfig) -> frozenset[int]:
    """The steps after which a run is looked at, the same on every rank.

    They are spread over the steps after which its length is still open, and are steps that are logged: then the clock
    has just been read.
    """
    longer = lengthened(config, min(2 * config.training.max_steps, MANY))
    last = common(_schedule(config), _schedule(longer))
    every = config.logging.log_interval
    steps = {last * number // LOOKS // every * every for number in range(1, LOOKS + 1)}
    return frozenset(step for step in steps if 0 < step < config.training.max_steps)


def lengthened(config: RunConfig, steps: int) -> RunConfig:
    """`config` with so many steps. Its warm-up is as long as before, a fixed end of the schedule moves in proportion.

    What is done at intervals keeps them, and with them its share of the time. Raises `ConfigError` where the phases of
    the schedule do not fit in so few.
    """
    values, before = config.model_dump(mode="json"), config.training.max_steps
    values["training"]["max_steps"] = steps
    schedule = values["scheduler"]
    if schedule.get("warmup_steps") == "auto":
        schedule["warmup_steps"] = warmup_steps(config.scheduler, max_steps=before)
    if isinstance(schedule.get("total_steps"), int):
        schedule["total_steps"] = min(max(1, round(schedule["total_steps"] * steps / before)), MANY)
    return checked(values)


def nearest(config: RunConfig, wanted: int, *, step: int) -> RunConfig:
    """`config` with `wanted` steps, or as near to them as leaves the first `step` updates as they were."""
    found, refused = config, wanted
    candidate = _open(config, wanted, step)
    if candidate is not None:
        return candidate
    while abs(refused - found.training.max_steps) > 1:
        middle = (refused + found.training.max_steps) // 2
        candidate = _open(config, middle, step)
        if candidate is None:
            refused = middle
        else:
            found = candidate
    return found


def _open(config: RunConfig, steps: int, step: int) -> RunConfig | None:
    """`config` with so many steps, None where the first `step` updates would have been others."""
    try:
        longer = lengthened(config, steps)
    except ConfigError:
        return None
    return longer if agree(_schedule(config), _schedule(longer), updates=step) else None


def _schedule(config: RunConfig) -> tuple[Config, int]:
    return config.scheduler, config.training.max_steps


def steps_in_time(config: RunConfig, pace: Pace, *, step: int, step_seconds: float, seconds: float) -> int:
    """How many steps a run has that ends in so many seconds from `step`, if steps take so long; one more at least."""

    def spent(steps: int) -> float:
        training = config.training.model_copy(update={"max_steps": steps})
        return pace.left(config.model_copy(update={"training": training}), step, step_seconds=step_seconds)

    most = step + max(1, int(seconds / step_seconds))
    return step + max(1, bisect_right(range(step + 1, most + 1), seconds, key=spent))
