"""How long what is left of a run will take, by how long its parts have taken so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from alm.training.config import RunConfig
from alm.training.costs import times
from alm.training.throughput import Lap

# Recent laps count most, and a single slow one does not turn the estimate over.
_NEWEST_LAP_WEIGHT = 0.3
# Between two looks a program may come and go: half is what it was before.
_NEWEST_LOOK_WEIGHT = 0.5


class Pace:
    """Seconds of a step, lately and over a longer time, and of each kind of pause, as long as the last one was.

    Kinds of pauses have the names that they have in `times`. `pauses` are the seconds of those that have not come yet.
    """

    def __init__(self, pauses: Mapping[str, float] | None = None) -> None:
        self._pauses = dict(pauses or {})
        self._step_seconds: float | None = None
        self._steady: float | None = None
        self._since_look: tuple[float, int] | None = None  # seconds and steps; None before the first lap

    def stepped(self, lap: Lap) -> None:
        """Take in a lap."""
        self._step_seconds = _nearer(self._step_seconds, lap.seconds / lap.steps, _NEWEST_LAP_WEIGHT)
        if self._since_look is None:
            self._since_look = (0.0, 0)  # the first lap says little: memory grows in it, or a model is compiled
        else:
            seconds, steps = self._since_look
            self._since_look = (seconds + lap.seconds, steps + lap.steps)

    def paused(self, kind: str) -> Callable[[float], None]:
        """What hears the length of a pause of `kind`."""

        def told(seconds: float) -> None:
            self._pauses[kind] = seconds

        return told

    def steady(self) -> float | None:
        """Seconds of a step from look to look, of which this is one; None while too little is known."""
        seconds, steps = self._since_look or (0.0, 0)
        if steps:
            self._steady = _nearer(self._steady, seconds / steps, _NEWEST_LOOK_WEIGHT)
            self._since_look = (0.0, 0)
        return self._steady

    def eta(self, config: RunConfig, step: int) -> float | None:
        """Seconds from `step` to the end of a run with `config`, at its speed of late; None before the first lap."""
        return None if self._step_seconds is None else self.left(config, step, step_seconds=self._step_seconds)

    def left(self, config: RunConfig, step: int, *, step_seconds: float) -> float:
        """Seconds from `step` to the end of a run with `config` whose steps take so long."""
        pauses = sum(number * self._pauses.get(kind, 0.0) for kind, number in times(config, after=step).items())
        return (config.training.max_steps - step) * step_seconds + pauses


def _nearer(before: float | None, now: float, weight: float) -> float:
    return now if before is None else before + weight * (now - before)
