"""A run's folder: what it holds before the first step, and what resuming it may change."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from alm import artifacts, files
from alm.artifacts import RunMetadata, Values
from alm.checkpoint import STAGING
from alm.config.load import Part, load, write_yaml
from alm.errors import ConfigError, quoted, shell
from alm.events import Listener, Noted, Warned
from alm.training.asked import OF_MEMORY, Asked
from alm.training.config import RunConfig, checked

CONFIG_NAME = "config.yaml"
METADATA_NAME = "run.json"
TOKENIZER_NAME = "tokenizer.json"
LOCK_NAME = ".lock"
SAMPLES_NAME = "samples.jsonl"
_STAGING = "run"

# What may differ from the run's own configuration when it is resumed.
MUTABLE = frozenset(
    {
        "training.max_steps",
        "training.checkpoint_interval",
        "training.keep_last",
        "training.parallel",
        "training.keep_every",
        "training.keep_best",
        "training.max_skipped_in_row",
        "training.micro_batch_size",  # with the next one: their product stays
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
    """The folder holds another run, or files of something else: one of another name mends it."""


def exists(run: Path) -> bool:
    """Whether `run` holds a run: its metadata is written before the first step."""
    files.ensure_published(run)
    return (run / METADATA_NAME).is_file()


def read_config(run: Path) -> RunConfig:
    """The resolved configuration of `run`."""
    return load(RunConfig, [Part(run / CONFIG_NAME)])


def read_metadata(run: Path) -> RunMetadata:
    """The metadata of `run`."""
    return artifacts.read(run / METADATA_NAME, RunMetadata, hint=f"name another folder than `{run}`")


def begin(run: Path, config: RunConfig, metadata: RunMetadata, *, tokenizer: Path) -> None:
    """Write what a run holds from its first step on, at one instant. Hold its lock."""
    contents = {
        CONFIG_NAME: write_yaml(config.model_dump(mode="json")).encode(),
        TOKENIZER_NAME: files.read_bytes(tokenizer),
    }
    for name, data in contents.items():
        if (run / name).is_file() and files.read_bytes(run / name) != data:
            raise OtherRunError(
                f"`{run / name}` is there, and no run in `{run}` wrote it",
                hint=f"add `{shell('--out', free_name(run))}`",
            )
    with files.staging(run, _STAGING) as stage:
        for name, data in contents.items():
            files.write_bytes(stage / name, data)
        artifacts.write(stage / METADATA_NAME, metadata)
        files.publish(stage, run, last=METADATA_NAME)


def rewrite(run: Path, config: RunConfig, asked: Asked) -> None:
    """Make `run` say how it is configured now, and what was asked for, at one instant. Hold its lock."""
    metadata = read_metadata(run)
    text = write_yaml(config.model_dump(mode="json"))
    if metadata.asked == asked and files.read_text(run / CONFIG_NAME) == text:
        return
    with files.staging(run, _STAGING) as stage:
        files.write_text(stage / CONFIG_NAME, text)
        artifacts.write(stage / METADATA_NAME, metadata.model_copy(update={"asked": dict(asked)}))
        files.publish(stage, run, last=METADATA_NAME)


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """`run` for this process alone; `AlmError` when another one is training in it.

    What a killed process had begun to publish is completed, and what it left half-written goes. A run in a folder that
    may not be written is not locked: nobody can train in it, and one that is finished can say so.
    """
    if exists(run) and not os.access(run, os.W_OK):
        yield
        return
    with files.exclusive(run / LOCK_NAME, what=f"the run in `{run}`"):
        files.ensure_published(run)
        for label in (_STAGING, STAGING):
            files.clear(run, label)
        yield


def resumed_config(run: Path, wanted: RunConfig, *, on_event: Listener) -> RunConfig:
    """The run's configuration with the changes of `wanted` that resuming allows.

    `auto` in `wanted` agrees with whatever was chosen. Raises `OtherRunError` listing every other change.
    """
    from alm.training.fit import curve  # imports PyTorch, which takes seconds: what is mistyped is reported before

    own = read_config(run)
    before, now = (dict(artifacts.flat(config.model_dump(mode="json"))) for config in (own, wanted))
    changed = [key for key in now if now[key] not in (_AUTO, before.get(key))]
    refused = [key for key in changed if key not in MUTABLE]
    refused += [key for key in before if key not in now]
    if wanted.training.sequences_per_step != own.training.sequences_per_step:
        refused += [key for key in changed if key in OF_MEMORY]
    elif any(key in OF_MEMORY for key in changed):
        on_event(Warned(f"a step is cut into other micro-batches: {curve(own)}"))
    allowed = [key for key in changed if key not in refused]
    if refused:
        lines = _table(refused, before, now)
        if allowed:
            lines += ["and with these changes, which are allowed:", *_table(allowed, before, now)]
        raise OtherRunError(
            "\n  ".join([f"`{run}` was begun with another configuration", *lines]),
            hint=f"start another run with `--out {quoted(free_name(run))}`, or leave out what differs",
        )
    if allowed:
        on_event(Noted("\n  ".join(["resuming with another configuration", *_table(allowed, before, now)])))
    if "training.max_steps" in changed and before["scheduler.total_steps"] == _AUTO:
        on_event(
            Warned(f"training.max_steps was {before['training.max_steps']}: the learning rate follows the new one")
        )
    values = own.model_dump(mode="json")
    for key in changed:
        section, _, name = key.partition(".")
        values[section][name] = now[key]
    return checked(values)


def _table(keys: Iterable[str], before: Values, now: Values) -> list[str]:
    """A line for each key: what it was, and what it is now."""
    keys = list(dict.fromkeys(keys))
    width = max(map(len, keys))
    return [f"{key:<{width}}  {before.get(key)} -> {now.get(key)}" for key in keys]


def free_name(run: Path) -> Path:
    """A folder beside `run` that does not exist yet."""
    run = run if run.name else run.resolve()
    number = 2
    while run.with_name(f"{run.name}-{number}").exists():
        number += 1
    return run.with_name(f"{run.name}-{number}")
