"""Converts a time into a number of steps, from measured costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from alm.config.base import MANY
from alm.errors import ConfigError, shell
from alm.training.config import RunConfig, checked
from alm.training.sizing.eta import TimeCosts, pauses_left
from alm.training.sizing.memory import preset_models

# Largest shares of the time. The rest is for steps.
VALIDATION_SHARE, SAMPLES_SHARE, SAVING_SHARE = 0.1, 0.1, 0.05
# A crash should cost no more than this, however long the run.
MOST_SECONDS_BETWEEN_CHECKPOINTS = 1800.0
FEWEST_VALIDATION_BYTES = 20_000
FEWEST_LOG_LINES = 20
# A model has learned nothing after fewer steps.
FEWEST_STEPS = 20


class TooShortError(ConfigError):
    """Raised for a time that is too short for a model to learn anything."""


def fit_steps(config: RunConfig, costs: TimeCosts, *, seconds: float, spent: float = 0.0) -> RunConfig:
    """Return `config` with as many steps as `seconds` allow, and everything else counted in steps in proportion.

    Validations, samples and checkpoints keep their number as long as they take no more than their share of the time:
    first they become fewer, then less text is scored. Checkpoints come at least every half hour. Raises
    `TooShortError`, with the least time that makes sense, if fewer than `FEWEST_STEPS` fit. `spent` are seconds of the
    time that have passed already.
    """
    budget, before, seconds = seconds + spent, pauses_left(config), max(seconds, 0.0)
    scored = _text_scored(config, costs, seconds)
    costs = replace(costs, validation=costs.validation * scored)
    number = {
        "validation": _affordable(before["validation"], costs.validation, VALIDATION_SHARE * seconds),
        "samples": _affordable(min(config.samples.count, before["samples"]), costs.samples, SAMPLES_SHARE * seconds),
        "saving": _affordable(
            max(before["saving"], math.ceil(seconds / MOST_SECONDS_BETWEEN_CHECKPOINTS)),
            costs.saving,
            SAVING_SHARE * seconds,
        ),
    }
    pauses = sum(number[name] * getattr(costs, name) for name in number)
    # Half of the largest number allowed: the run may become longer (`time_budget.py`).
    steps = min(math.floor((seconds - costs.start - pauses) / costs.step), MANY // 2)
    if steps < FEWEST_STEPS:
        least, rest = FEWEST_STEPS * costs.step, spent + costs.start + pauses
        name, smallest = next(iter(preset_models().items()))
        is_smallest = config.model.d_model <= smallest.d_model
        smaller = "" if is_smallest else f", or a smaller model: `{shell('--model', name)}`"
        raise TooShortError(
            f"{budget:,.0f} seconds are too short for this model to learn anything: {FEWEST_STEPS} steps take "
            f"{least:,.1f} seconds, and the rest of a run takes {rest:,.1f}",
            hint=f"give it at least `{shell('--budget', rounded(rest + least))}`{smaller}",
        )
    return with_steps(config, steps, number, validation_bytes=math.ceil(config.validation.bytes * scored))


def rounded(seconds: float) -> str:
    """Return a duration with a margin for a busier machine, as for `--budget`."""
    wanted = math.ceil(1.2 * seconds)
    return f"{wanted}s" if wanted <= 120 else f"{math.ceil(wanted / 60)}m"


def _affordable(number: int, each: float, seconds: float) -> int:
    """Return how many of `number` fit into `seconds`, at least one if there are any."""
    return min(number, max(1, int(seconds / each))) if each else number


def _text_scored(config: RunConfig, costs: TimeCosts, seconds: float) -> float:
    """Return the share of the held-out text with which one validation takes no more than its share of the time."""
    if costs.validation <= VALIDATION_SHARE * seconds:
        return 1.0
    least = min(1.0, FEWEST_VALIDATION_BYTES / config.validation.bytes)
    return max(least, VALIDATION_SHARE * seconds / costs.validation)


def with_steps(config: RunConfig, steps: int, number: Mapping[str, int], *, validation_bytes: int) -> RunConfig:
    training, ratio = config.training, steps / config.training.max_steps
    values = config.model_dump(mode="json")
    values["training"] |= {
        "max_steps": steps,
        "checkpoint_interval": math.ceil(steps / number["saving"]),
        "keep_every": min(max(1, round(training.keep_every * ratio)), MANY) if training.keep_every else None,
    }
    values["validation"] |= {"interval": math.ceil(steps / max(number["validation"], 1)), "bytes": validation_bytes}
    values["samples"]["count"] = max(number["samples"], 1)
    values["logging"]["log_interval"] = max(1, min(config.logging.log_interval, steps // FEWEST_LOG_LINES))
    for key in ("warmup_steps", "total_steps"):
        if isinstance(values["scheduler"].get(key), int):
            values["scheduler"][key] = min(
                max(int(key == "total_steps"), round(values["scheduler"][key] * ratio)), MANY
            )
    return checked(values)
