"""What was asked for where the machine decided otherwise, so that the same command goes on with what was decided.

A budget chooses steps, and what else is counted in them, when a run begins; full memory cuts micro-batches at any time.
Whoever types the same command again asks for what was asked for then, and means the run as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from alm import artifacts
from alm.artifacts import AskedValue, Values
from alm.training.config import RunConfig, checked

STEPS = "training.max_steps"
# What `alm.training.budget.fitted` chooses.
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
# One says nothing without the other.
OF_MEMORY = ("training.micro_batch_size", "training.gradient_accumulation")

Asked = Mapping[str, AskedValue]


def asked_of(config: RunConfig) -> Asked:
    """All that `config` asks for and the machine may decide otherwise."""
    values = _flat(config)
    return {key: values[key] for key in (*OF_A_BUDGET, *OF_MEMORY) if key in values}


def differing(asked: Asked, config: RunConfig) -> Asked:
    """Those of `asked` that `config` has otherwise: what is worth noting."""
    values = _flat(config)
    return {key: value for key, value in asked.items() if key in values and values[key] != value}


def overrides(asked: Asked, *, has_budget: bool) -> list[str]:
    """What makes a run's own configuration that which a command without files asked for: `key=value`, as for `--set`.

    What a budget chose is taken back only for another one.
    """
    keys = (*OF_MEMORY, *(OF_A_BUDGET if has_budget else ()))
    return [f"{key}={'null' if asked[key] is None else asked[key]}" for key in keys if key in asked]


def kept(wanted: RunConfig, own: RunConfig, asked: Asked, *, has_budget: bool) -> RunConfig:
    """`wanted` for a run that is configured as `own`, with what was decided wherever it asks for the same as before.

    With a budget steps stay in any case: they are not asked for. Anything else is a change.
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
    """What is asked for after a run of `own` was gone on with as `wanted`, which `kept` has made."""
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
