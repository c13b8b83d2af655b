"""A run's folder: its files before the first step, and the settings that a resume may change."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from alm import artifacts, files
from alm.artifacts import RequestedValue, RunMetadata, Values
from alm.checkpoint import STAGING
from alm.config.load import Part, load
from alm.config.yaml_files import write_yaml
from alm.errors import ConfigError, quoted, shell
from alm.events import Listener, Noted, Warned
from alm.training.config import RunConfig, checked

CONFIG_NAME = "config.yaml"
METADATA_NAME = "run.json"
TOKENIZER_NAME = "tokenizer.json"
CHAT_TEMPLATE_NAME = "chat_template.jinja"  # of an imported model, and of runs that start from it
LOCK_NAME = ".lock"
SAMPLES_NAME = "samples.jsonl"
_STAGING = "run"

# Settings that the machine may replace, so that the same command resumes with the replaced values: a budget chooses the
# first group when a run starts (`alm.training.sizing.budget.fit_steps`), full memory shrinks micro-batches at any time.
_STEPS = "training.max_steps"
CHOSEN_BY_BUDGET = (
    _STEPS,
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
CUT_BY_MEMORY = ("training.micro_batch_size", "training.gradient_accumulation")

Requested = Mapping[str, RequestedValue]
"""Values that a command requests, by dotted key; `asked` in run.json has those that differ from the configuration."""

# Settings that may differ from the run's own configuration on resume.
MUTABLE = frozenset(
    {
        "training.max_steps",
        "training.checkpoint_interval",
        "training.keep_last",
        "training.parallel",
        "training.keep_every",
        "training.keep_best",
        "training.stop_when_worse",
        "training.max_skipped_in_row",
        "training.micro_batch_size",  # together with the next one: their product must stay the same
        "training.gradient_accumulation",
        "validation.interval",
        "validation.bytes",
        "samples.prompts",
        "samples.count",
        "samples.max_tokens",
        "samples.temperature",
        "samples.top_k",
        "logging.log_interval",
        "logging.rich_progress",
        "logging.sinks",
        "data.prefetch",
    }
)
_AUTO = "auto"


class OtherRunError(ConfigError):
    """Raised when the folder holds another run, or other files: another folder name fixes it."""


def exists(run: Path) -> bool:
    """Whether `run` holds a run; its metadata is written before the first step."""
    files.ensure_published(run)
    return (run / METADATA_NAME).is_file()


def read_config(run: Path) -> RunConfig:
    """Return the resolved configuration of `run`: one that an older alm began continues as it did there."""
    found = load(RunConfig, [Part(run / CONFIG_NAME)])
    if "stop_when_worse" in found.training.model_fields_set:
        return found
    return _with_values(found, {"training.stop_when_worse": False})


def read_metadata(run: Path) -> RunMetadata:
    """Return the metadata of `run`."""
    return artifacts.read(run / METADATA_NAME, RunMetadata, hint=f"name another folder than `{run}`")


def create(run: Path, config: RunConfig, metadata: RunMetadata, *, tokenizer: Path, kept: Mapping[str, bytes]) -> None:
    """Write the files that a run has from its first step on, atomically. The caller holds its lock.

    `kept` are further files by name, of the model that the run starts from.
    """
    contents = {
        CONFIG_NAME: write_yaml(config.model_dump(mode="json")).encode(),
        TOKENIZER_NAME: files.read_bytes(tokenizer),
    }
    contents |= kept
    for name, data in contents.items():
        if (run / name).is_file() and files.read_bytes(run / name) != data:
            raise OtherRunError(
                f"`{run / name}` exists, but no run in `{run}` wrote it",
                hint=f"add `{shell('--out', free_name(run))}`",
            )
    with files.staging(run, _STAGING) as stage:
        for name, data in contents.items():
            files.write_bytes(stage / name, data)
        artifacts.write(stage / METADATA_NAME, metadata)
        files.publish(stage, run, last=METADATA_NAME)


def rewrite(run: Path, config: RunConfig, requested: Requested) -> None:
    """Write the current configuration of `run`, and the requested values that differ from it, atomically.

    The caller holds the lock of `run`.
    """
    metadata = read_metadata(run)
    text = write_yaml(config.model_dump(mode="json"))
    if metadata.asked == requested and files.read_text(run / CONFIG_NAME) == text:
        return
    with files.staging(run, _STAGING) as stage:
        files.write_text(stage / CONFIG_NAME, text)
        artifacts.write(stage / METADATA_NAME, metadata.model_copy(update={"asked": dict(requested)}))
        files.publish(stage, run, last=METADATA_NAME)


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Lock `run` for this process; raise `AlmError` when another one is training in it.

    Files that a killed process had started to publish are completed, and half-written ones are removed. A run in a
    read-only folder is not locked: no process can train in it, but a finished run can still be reported as finished.
    """
    if exists(run) and not os.access(run, os.W_OK):
        yield
        return
    with files.exclusive(run / LOCK_NAME, what=f"the run in `{run}`"):
        files.ensure_published(run)
        for label in (_STAGING, STAGING):
            files.clear(run, label)
        yield


def requested_by(config: RunConfig) -> Requested:
    """Return the values that `config` requests of all settings that the machine may replace."""
    values = _flat(config)
    return {key: values[key] for key in (*CHOSEN_BY_BUDGET, *CUT_BY_MEMORY) if key in values}


def replaced(requested: Requested, config: RunConfig) -> Requested:
    """Return those of `requested` that differ from `config`: only these are worth recording."""
    values = _flat(config)
    return {key: value for key, value in requested.items() if key in values and values[key] != value}


def requested_overrides(requested: Requested, *, has_budget: bool) -> list[str]:
    """Return the `key=value` overrides, as for `--set`, that turn a run's own configuration into the requested one.

    The choices of a budget are undone only for another budget.
    """
    keys = (*CUT_BY_MEMORY, *(CHOSEN_BY_BUDGET if has_budget else ()))
    return [f"{key}={'null' if requested[key] is None else requested[key]}" for key in keys if key in requested]


def reconcile(
    wanted: RunConfig, stored: RunConfig, requested: Requested, *, has_budget: bool
) -> tuple[RunConfig, Requested]:
    """Return the configuration with which a run resumes as `wanted`, and the values that are requested from now on.

    The run is configured as `stored`, where the machine replaced the values in `requested`. A value that is requested
    again as before means the run as it is: its replacement stays. Any other difference is a change. With a budget the
    steps always stay: they are not requested.
    """
    now, before = _flat(wanted), _flat(stored)
    kept: dict[str, RequestedValue] = {}
    for keys in (CUT_BY_MEMORY, *((key,) for key in (CHOSEN_BY_BUDGET if has_budget else ()))):
        if all(key in now and key in before for key in keys) and (
            keys == (_STEPS,) or all(now[key] == requested.get(key, before[key]) for key in keys)
        ):
            kept |= {key: before[key] for key in keys}
    config = _with_values(wanted, kept) if kept else wanted
    still_requested = {
        key: requested.get(key, value) if value == before.get(key) else value
        for key, value in requested_by(config).items()
    }
    return config, still_requested


def resumed_config(run: Path, wanted: RunConfig, *, on_event: Listener) -> RunConfig:
    """Return the run's configuration with the changes of `wanted` that a resume allows.

    `auto` in `wanted` matches whatever was chosen. Raises `OtherRunError` listing every other change.
    """
    # Imports PyTorch, which takes seconds: typos are reported before that.
    from alm.training.sizing.memory import describe_curve

    own = read_config(run)
    before, now = _flat(own), _flat(wanted)
    changed = [key for key in now if now[key] not in (_AUTO, before.get(key))]
    refused = [key for key in changed if key not in MUTABLE]
    refused += [key for key in before if key not in now]
    if wanted.training.sequences_per_step != own.training.sequences_per_step:
        refused += [key for key in changed if key in CUT_BY_MEMORY]
    elif any(key in CUT_BY_MEMORY for key in changed):
        on_event(Warned(f"a step is now split into different micro-batches: {describe_curve(own)}"))
    allowed = [key for key in changed if key not in refused]
    if refused:
        lines = _table(refused, before, now)
        if allowed:
            lines += ["these other changes are allowed:", *_table(allowed, before, now)]
        raise OtherRunError(
            "\n  ".join([f"`{run}` was started with another configuration", *lines]),
            hint=f"start another run with `--out {quoted(free_name(run))}`, or leave out these changes",
        )
    if allowed:
        on_event(Noted("\n  ".join(["resuming with changed settings", *_table(allowed, before, now)])))
    if "training.max_steps" in changed and before.get("scheduler.total_steps") == _AUTO:
        on_event(
            Warned(f"training.max_steps was {before['training.max_steps']}: the learning rate follows the new value")
        )
    return _with_values(own, {key: now[key] for key in changed})


def _flat(config: RunConfig) -> Values:
    return dict(artifacts.flat(config.model_dump(mode="json")))


def _with_values(config: RunConfig, changes: Requested) -> RunConfig:
    values = config.model_dump(mode="json")
    for key, value in changes.items():
        section, _, name = key.partition(".")
        values[section][name] = value
    return checked(values)


def _table(keys: Iterable[str], before: Values, now: Values) -> list[str]:
    """Return a line for each key, with its value before and now."""
    keys = list(dict.fromkeys(keys))
    width = max(map(len, keys))
    return [f"{key:<{width}}  {before.get(key)} -> {now.get(key)}" for key in keys]


def free_name(run: Path) -> Path:
    """Return the path of a folder beside `run` that does not exist yet."""
    run = run if run.name else run.resolve()
    number = 2
    while run.with_name(f"{run.name}-{number}").exists():
        number += 1
    return run.with_name(f"{run.name}-{number}")
