"""Checks that a number of ranks fits a run, and chooses how they share its model, from the configuration alone."""

from __future__ import annotations

import math

from alm import device, kinds
from alm.device import Choice
from alm.distributed import Place
from alm.errors import ConfigError
from alm.model.count import BYTES, count
from alm.training.config import RunConfig, TrainingConfig
from alm.training.sizing.memory import checkpoint_bytes

# Largest share of the memory for weights, gradients and moments; the rest is for activations.
STATE_SHARE_OF_MEMORY = 0.6


def choose_parallel(config: RunConfig, choice: Choice, here: Place) -> str:
    """Resolve `training.parallel: auto`: fsdp if weights, gradients and moments would fill the memory, else ddp."""
    if config.training.parallel != "auto":
        return config.training.parallel
    memory = device.memory_bytes(choice.device)
    if (
        memory is None
        or here.size == 1
        or config.lora.rank
        or config.training.reproducible
        or not _works_on_parts(config)
    ):
        return "ddp"
    sharers = here.local_size if choice.device.type == "cpu" else 1
    gradients = BYTES["fp32"] * count(config.model).total
    needed = gradients + checkpoint_bytes(config)
    return "fsdp" if needed > STATE_SHARE_OF_MEMORY * memory / sharers else "ddp"


def check(config: RunConfig, here: Place) -> None:
    """Raise `ConfigError` if this number of ranks cannot share a step or the model, with the nearest that can."""
    training, ranks = config.training, here.size
    number = training.gradient_accumulation
    if training.parallel == "fsdp" and ranks > 1 and not _works_on_parts(config):
        name = kinds.module_of(config.optim).__name__.rpartition(".")[2]
        raise ConfigError(
            f"the optimizer `{name}` needs full matrices, but fsdp gives each rank only a part of them",
            hint="use `--set training.parallel=ddp`, or `--set optim=adamw`",
        )
    if training.reproducible:
        _check_tree(training, ranks)
    if number % ranks:
        raise ConfigError(
            f"{ranks} ranks cannot share {number} micro-batches evenly (`training.gradient_accumulation`)",
            hint=f"use {_nearest_ranks(number, ranks)}, or {_regrouped(training, ranks)}",
        )


def _works_on_parts(config: RunConfig) -> bool:
    return not config.lora.rank and bool(getattr(kinds.module_of(config.optim), "WORKS_ON_PARTS", False))


def _check_tree(training: TrainingConfig, ranks: int) -> None:
    if training.parallel == "fsdp":
        raise ConfigError(
            "`training.reproducible` needs the full gradient on each rank, which fsdp does not keep",
            hint="leave one of them out: `--set training.parallel=ddp`",
        )
    for value, what in ((training.gradient_accumulation, "`training.gradient_accumulation`"), (ranks, "ranks")):
        if value & (value - 1):
            below = 1 << (value.bit_length() - 1)
            raise ConfigError(
                f"`training.reproducible` adds up in pairs: {what} must be a power of two, not {value}",
                hint=f"use {below} or {below * 2}",
            )


def _nearest_ranks(number: int, ranks: int) -> str:
    fitting = [n for n in range(1, number + 1) if number % n == 0]
    below, above = [n for n in fitting if n < ranks], [n for n in fitting if n > ranks]
    nearest = " or ".join(str(n) for n in (*below[-1:], *above[:1]))
    return f"{nearest} rank" if nearest == "1" else f"{nearest} ranks"


def _regrouped(training: TrainingConfig, ranks: int) -> str:
    """Return settings that `ranks` can share: the same batch split differently if possible, else the nearest."""
    sequences, number = training.sequences_per_step, training.gradient_accumulation
    cuts = [n for n in range(ranks, sequences + 1, ranks) if sequences % n == 0]
    if cuts:
        best = min(cuts, key=lambda n: abs(n - number))
        return (
            f"`--set training.micro_batch_size={sequences // best} --set training.gradient_accumulation={best}`, "
            "which is the same batch"
        )
    below, above = number // ranks * ranks, math.ceil(number / ranks) * ranks
    return " or ".join(f"`--set training.gradient_accumulation={n}`" for n in (below, above) if n)


def label(config: RunConfig, here: Place) -> str:
    """Return the ranks of a run as far as its bits depend on them: "1", "4, ddp", or "any" if they do not."""
    if config.training.reproducible:
        return "any"
    return "1" if here.size == 1 else f"{here.size}, {config.training.parallel}"
