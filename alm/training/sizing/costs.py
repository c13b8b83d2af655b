"""Time that a run takes, by part."""

from __future__ import annotations

from dataclasses import dataclass

from alm.training.config import RunConfig
from alm.training.monitoring.samples import AUTO_PROMPTS, sample_steps
from alm.training.sizing.memory import checkpoint_bytes
from alm.training.sizing.probe import Rates

# Copying, serializing, hashing and writing together, and the fixed time of each checkpoint (docs/benchmarks.md).
SAVING_BYTES_PER_SECOND, SAVING_SECONDS = 300e6, 0.05
# From the measurement to the first step: building the model, writing the run's files, choosing the rows to score.
START_SECONDS = 1.0


@dataclass(frozen=True)
class Costs:
    """Seconds of a run's start, and of each step, validation, set of samples and checkpoint; 0 for parts it lacks."""

    start: float
    step: float
    validation: float
    samples: float
    saving: float

    def of(self, config: RunConfig) -> dict[str, float]:
        """Return the seconds of a run with this configuration, by part."""
        number = times(config)
        return {
            "start": self.start,
            "steps": config.training.max_steps * self.step,
            "validation": number["validation"] * self.validation,
            "samples": number["samples"] * self.samples,
            "checkpoints": number["saving"] * self.saving,
        }


def times(config: RunConfig, *, after: int = 0) -> dict[str, int]:
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


def costs(config: RunConfig, rates: Rates, *, validation_sequences: int, start: float, ranks: int = 1) -> Costs:
    """Return the `Costs` at the measured `rates`; ranks share the `validation_sequences` that a validation scores."""
    training, samples = config.training, config.samples
    prompts = AUTO_PROMPTS if samples.prompts == "auto" else len(samples.prompts)
    # A prompt is read in one forward, which takes about as long as a token.
    generated = prompts * (samples.max_tokens + 1)
    return Costs(
        start=start,
        step=rates.step(training.gradient_accumulation // ranks),
        validation=rates.validation_sequence * validation_sequences / ranks,
        samples=rates.generated_token * generated,
        saving=SAVING_SECONDS + checkpoint_bytes(config) / SAVING_BYTES_PER_SECOND,
    )
