"""Requested settings that the machine replaced, so that the same command resumes with the replaced values.

A budget chooses the number of steps, and settings counted in steps, when a run starts; full memory shrinks
micro-batches at any time. The same command typed again requests the original values, and means the run as it is now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from alm import artifacts
from alm.artifacts import AskedValue, Values
from alm.training.config import RunConfig, checked

STEPS = "training.max_steps"
# Settings that `alm.training.sizing.budget.fitted` chooses.
OF_A_BUDGET = (
    STEPS,
    "training.checkpoint_interval",
    "training.keep_every",
    "validation.interval",
    "validation.bytes",
    "samples.count",
    "logging.log_interval",
    "scheduler.warmup_steps",
    "scheduler.total_steps",
)
# Always compared and replaced together: only their product is fixed.
OF_MEMORY = ("training.micro_batch_size", "training.gradient_accumulation")

Asked = Mapping[str, AskedValue]


def asked_of(config: RunConfig) -> Asked:
    """Return all settings that `config` requests and the machine may replace."""
    values = _flat(config)
    return {key: values[key] for key in (*OF_A_BUDGET, *OF_MEMORY) if key in values}


def differing(asked: Asked, config: RunConfig) -> Asked:
    """Return those of `asked` that differ from `config`: only these are worth recording."""
    values = _flat(config)
    return {key: value for key, value in asked.items() if key in values and values[key] != value}


def overrides(asked: Asked, *, has_budget: bool) -> list[str]:
    """Return the `key=value` overrides, as for `--set`, that turn a run's own configuration into the requested one.

    The choices of a budget are taken back only for another budget.
    """
    keys = (*OF_MEMORY, *(OF_A_BUDGET if has_budget else ()))
    return [f"{key}={'null' if asked[key] is None else asked[key]}" for key in keys if key in asked]


def kept(wanted: RunConfig, own: RunConfig, asked: Asked, *, has_budget: bool) -> RunConfig:
    """Return `wanted` for a run configured as `own`, with replaced values wherever the request is the same as before.

    With a budget the steps always stay: they are not requested. Any other difference is a change.
    """
    now, before = _flat(wanted), _flat(own)
    decided: dict[str, AskedValue] = {}
    for keys in _groups(has_budget=has_budget):
        if all(key in now and key in before for key in keys) and (
            keys == (STEPS,) or all(now[key] == asked.get(key, before[key]) for key in keys)
        ):
            decided |= {key: before[key] for key in keys}
    return _with(wanted, decided)


def still_asked(wanted: RunConfig, own: RunConfig, asked: Asked) -> Asked:
    """Return the requested settings after a run of `own` is resumed as `wanted`, which `kept` returned."""
    before = _flat(own)
    return {
        key: asked.get(key, value) if value == before.get(key) else value for key, value in asked_of(wanted).items()
    }


def _groups(*, has_budget: bool) -> Iterator[tuple[str, ...]]:
    yield OF_MEMORY
    if has_budget:
        yield from ((key,) for key in OF_A_BUDGET)


def _flat(config: RunConfig) -> Values:
    return dict(artifacts.flat(config.model_dump(mode="json")))


def _with(config: RunConfig, changes: Asked) -> RunConfig:
    if not changes:
        return config
    values = config.model_dump(mode="json")
    for key, value in changes.items():
        section, _, name = key.partition(".")
        values[section][name] = value
    return checked(values)
