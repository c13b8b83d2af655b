"""Predicts how long a run takes, by part, and how long the rest of it takes while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from alm.training.config import RunConfig
from alm.training.monitoring.samples import AUTO_PROMPTS, sample_steps
from alm.training.monitoring.throughput import LapTime
from alm.training.sizing.memory import checkpoint_bytes
from alm.training.sizing.probe import StepTimings

# Copying, serializing, hashing and writing together, and the fixed time of each checkpoint (docs/benchmarks.md).
SAVING_BYTES_PER_SECOND, SAVING_SECONDS = 300e6, 0.05
# From the measurement to the first step: building the model, writing the run's files, choosing the rows to score.
START_SECONDS = 1.0
# Recent laps count most, but a single slow one does not dominate the estimate.
_NEWEST_LAP_WEIGHT = 0.3
# Other programs may come and go between two checks, so each check counts half.
_NEWEST_CHECK_WEIGHT = 0.5


@dataclass(frozen=True)
class TimeCosts:
    """Seconds of a run's start, and of each step, validation, set of samples and checkpoint; 0 for parts it lacks."""

    start: float
    step: float
    validation: float
    samples: float
    saving: float

    def by_part(self, config: RunConfig) -> dict[str, float]:
        """Return the seconds of a run with this configuration, by part."""
        number = pauses_left(config)
        return {
            "start": self.start,
            "steps": config.training.max_steps * self.step,
            "validation": number["validation"] * self.validation,
            "samples": number["samples"] * self.samples,
            "checkpoints": number["saving"] * self.saving,
        }


def time_costs(
    config: RunConfig, timings: StepTimings, *, validation_sequences: int, start: float, ranks: int = 1
) -> TimeCosts:
    """Return the costs of a run with the measured `timings`; ranks share the sequences that a validation scores."""
    training, samples = config.training, config.samples
    prompts = AUTO_PROMPTS if samples.prompts == "auto" else len(samples.prompts)
    # A prompt is read in one forward, which takes about as long as a token.
    generated = prompts * (samples.max_tokens + 1)
    return TimeCosts(
        start=start,
        step=timings.step(training.gradient_accumulation // ranks),
        validation=timings.validation_sequence * validation_sequences / ranks,
        samples=timings.generated_token * generated,
        saving=SAVING_SECONDS + checkpoint_bytes(config) / SAVING_BYTES_PER_SECOND,
    )


def pauses_left(config: RunConfig, *, after: int = 0) -> dict[str, int]:
    """Return how many validations, checkpoints and samples remain once step `after` and its own are done."""
    steps = config.training.max_steps
    sampled = sample_steps(steps, config.samples.count) if config.samples.prompts else ()
    return {
        "validation": times_left(config.validation.interval, steps, after),
        "saving": times_left(config.training.checkpoint_interval, steps, after),
        "samples": sum(step > after for step in sampled),
    }


def times_left(interval: int, steps: int, after: int) -> int:
    """Return how often something is still due after step `after`, if it is due every `interval` steps and at the last.

    >>> times_left(40, 100, after=40)
    2
    """
    return -(-steps // interval) - after // interval if after < steps else 0


class TimeLeft:
    """Seconds of a step, recently and over a longer time, and of the last pause of each kind.

    Kinds of pauses are named as in `pauses_left`. `pauses` gives the expected seconds of kinds that have not
    happened yet.
    """

    def __init__(self, pauses: Mapping[str, float] | None = None) -> None:
        self._pauses = dict(pauses or {})
        self._step_seconds: float | None = None
        self._steady: float | None = None
        self._since_check: tuple[float, int] | None = None  # seconds and steps; None before the first lap

    def stepped(self, lap: LapTime) -> None:
        """Add a lap."""
        self._step_seconds = _nearer(self._step_seconds, lap.seconds / lap.steps, _NEWEST_LAP_WEIGHT)
        if self._since_check is None:
            self._since_check = (0.0, 0)  # skip the first lap: memory grows in it, or a model is compiled
        else:
            seconds, steps = self._since_check
            self._since_check = (seconds + lap.seconds, steps + lap.steps)

    def paused(self, kind: str) -> Callable[[float], None]:
        """Return a callback for the length of a pause of `kind`."""

        def set_length(seconds: float) -> None:
            self._pauses[kind] = seconds

        return set_length

    def steady(self) -> float | None:
        """Return the seconds of a step, averaged over checks, of which this is one; None if too little is known."""
        seconds, steps = self._since_check or (0.0, 0)
        if steps:
            self._steady = _nearer(self._steady, seconds / steps, _NEWEST_CHECK_WEIGHT)
            self._since_check = (0.0, 0)
        return self._steady

    def eta(self, config: RunConfig, step: int) -> float | None:
        """Return the seconds from `step` to the end of a run with `config` at its recent speed; None before a lap."""
        return None if self._step_seconds is None else self.left(config, step, step_seconds=self._step_seconds)

    def left(self, config: RunConfig, step: int, *, step_seconds: float) -> float:
        """Return the seconds from `step` to the end of a run with `config` whose steps take `step_seconds`."""
        pauses = sum(number * self._pauses.get(kind, 0.0) for kind, number in pauses_left(config, after=step).items())
        return (config.training.max_steps - step) * step_seconds + pauses


def _nearer(before: float | None, now: float, weight: float) -> float:
    return now if before is None else before + weight * (now - before)
