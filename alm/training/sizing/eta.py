"""Estimates the time left of a run from the time that its parts have taken so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from alm.training.config import RunConfig
from alm.training.monitoring.throughput import Timer
from alm.training.sizing.costs import times

# Recent laps count most, but a single slow one does not dominate the estimate.
_NEWEST_LAP_WEIGHT = 0.3
# Other programs may come and go between two checks, so each check counts half.
_NEWEST_LOOK_WEIGHT = 0.5


class TimeLeft:
    """Seconds of a step, recently and over a longer time, and of the last pause of each kind.

    Kinds of pauses are named as in `times`. `pauses` gives the expected seconds of kinds that have not happened yet.
    """

    def __init__(self, pauses: Mapping[str, float] | None = None) -> None:
        self._pauses = dict(pauses or {})
        self._step_seconds: float | None = None
        self._steady: float | None = None
        self._since_look: tuple[float, int] | None = None  # seconds and steps; None before the first lap

    def stepped(self, lap: Timer) -> None:
        """Add a lap."""
        self._step_seconds = _nearer(self._step_seconds, lap.seconds / lap.steps, _NEWEST_LAP_WEIGHT)
        if self._since_look is None:
            self._since_look = (0.0, 0)  # skip the first lap: memory grows in it, or a model is compiled
        else:
            seconds, steps = self._since_look
            self._since_look = (seconds + lap.seconds, steps + lap.steps)

    def paused(self, kind: str) -> Callable[[float], None]:
        """Return a callback for the length of a pause of `kind`."""

        def told(seconds: float) -> None:
            self._pauses[kind] = seconds

        return told

    def steady(self) -> float | None:
        """Return the seconds of a step, averaged over checks, of which this is one; None if too little is known."""
        seconds, steps = self._since_look or (0.0, 0)
        if steps:
            self._steady = _nearer(self._steady, seconds / steps, _NEWEST_LOOK_WEIGHT)
            self._since_look = (0.0, 0)
        return self._steady

    def eta(self, config: RunConfig, step: int) -> float | None:
        """Return the seconds from `step` to the end of a run with `config` at its recent speed; None before a lap."""
        return None if self._step_seconds is None else self.left(config, step, step_seconds=self._step_seconds)

    def left(self, config: RunConfig, step: int, *, step_seconds: float) -> float:
        """Return the seconds from `step` to the end of a run with `config` whose steps take `step_seconds`."""
        pauses = sum(number * self._pauses.get(kind, 0.0) for kind, number in times(config, after=step).items())
        return (config.training.max_steps - step) * step_seconds + pauses


def _nearer(before: float | None, now: float, weight: float) -> float:
    return now if before is None else before + weight * (now - before)
