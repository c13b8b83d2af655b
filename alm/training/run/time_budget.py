"""Keeps a run within its time budget: its speed is checked a few times, and the number of steps follows.

The number of steps may change while the learning rates so far do not depend on it: every step done so far is then the
same as in a run with the new number, and the run ends in the bits of one that had that number from its start.
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
from alm.training.config import RunConfig, checked
from alm.training.sizing.budget import MOST_SECONDS_BETWEEN_CHECKPOINTS
from alm.training.sizing.costs import Costs
from alm.training.sizing.eta import TimeLeft

# Spread evenly over the steps while the length is open, so that a machine that becomes slower is noticed in time:
# a quickstart whose steps became nine times slower at step 24 of 255 still ended on time (docs/benchmarks.md).
LOOKS = 8
# Share of the remaining steps: the speed of an otherwise idle machine varies by less.
WORTH_A_CHANGE = 0.05


@dataclass(frozen=True)
class Budget:
    """The end of a run, of `time.monotonic`, and the costs of its parts as measured before it started."""

    finish_by: float
    costs: Costs

    def pace(self) -> TimeLeft:
        """Return a pace that knows the length of the pauses to come."""
        return TimeLeft({name: getattr(self.costs, name) for name in ("validation", "samples", "saving")})


class Timekeeper:
    """Decides after which step a run gets another length: `changed` is its new configuration, None if unchanged.

    Without a budget it never changes. Ranks call it together; the main rank decides. It lives as long as the process:
    a run that will be late is reported once, until it is in time again.
    """

    def __init__(
        self, config: RunConfig, budget: Budget | None, pace: TimeLeft, *, world: World, on_event: Listener
    ) -> None:
        self._budget, self._pace = budget, pace
        self._world, self._on_event = world, on_event
        self._is_late = False
        self.go_on(config)

    def go_on(self, config: RunConfig) -> None:
        """Continue with `config`, the current configuration of the run."""
        self._config = config
        self._steps = frozenset() if self._budget is None else looks(config)
        self.changed: RunConfig | None = None

    def __call__(self, step: int) -> bool:
        """Check the speed if a check is due after `step`; return whether the run changes."""
        budget = self._budget
        if budget is not None and step in self._steps:
            self.changed = self._world.from_main(lambda: self._look(step, budget))
        return self.changed is not None

    def _look(self, step: int, budget: Budget) -> RunConfig | None:
        each = self._pace.steady()
        if each is None:
            return None
        # Twice: the run waits for its last checkpoint, and for one when its length changes.
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
    """Return `config` with checkpoints as often as `fitted` promises, for steps of `step_seconds`."""
    training = config.training
    most = max(1, int(MOST_SECONDS_BETWEEN_CHECKPOINTS / step_seconds))
    interval = min(training.checkpoint_interval, most)
    return config.model_copy(update={"training": training.model_copy(update={"checkpoint_interval": interval})})


def _is_worth_it(steps: int, before: int, step: int) -> bool:
    return abs(steps - before) > WORTH_A_CHANGE * (before - step)


def looks(config: RunConfig) -> frozenset[int]:
    """Return the steps after which the speed is checked, the same on every rank.

    They are spread over the steps after which the length is still open, and are logged steps: the clock has just been
    read there.
    """
    longer = lengthened(config, min(2 * config.training.max_steps, MANY))
    last = common(_schedule(config), _schedule(longer))
    every = config.logging.log_interval
    steps = {last * number // LOOKS // every * every for number in range(1, LOOKS + 1)}
    return frozenset(step for step in steps if 0 < step < config.training.max_steps)


def lengthened(config: RunConfig, steps: int) -> RunConfig:
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


def nearest(config: RunConfig, wanted: int, *, step: int) -> RunConfig:
    """Return `config` with `wanted` steps, or the nearest number that leaves the first `step` updates unchanged."""
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
    """Return `config` with `steps` steps, None if the first `step` updates would have been different."""
    try:
        longer = lengthened(config, steps)
    except ConfigError:
        return None
    return longer if agree(_schedule(config), _schedule(longer), updates=step) else None


def _schedule(config: RunConfig) -> tuple[Config, int]:
    return config.scheduler, config.training.max_steps


def steps_in_time(config: RunConfig, pace: TimeLeft, *, step: int, step_seconds: float, seconds: float) -> int:
    """Return the number of steps with which a run ends `seconds` after `step`, at least `step` + 1."""

    def spent(steps: int) -> float:
        training = config.training.model_copy(update={"max_steps": steps})
        return pace.left(config.model_copy(update={"training": training}), step, step_seconds=step_seconds)

    most = step + max(1, int(seconds / step_seconds))
    return step + max(1, bisect_right(range(step + 1, most + 1), seconds, key=spent))
