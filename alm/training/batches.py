"""Batches of a run: the plan that decides each of them, and how often they repeat the text."""

from __future__ import annotations

from alm.data.loader import BatchPlan, batch_plan
from alm.data.mixture import Mixture
from alm.packing.shards import TokenStream
from alm.training.config import RunConfig

ALL = "all sources"


def plan_batches(config: RunConfig, stream: TokenStream) -> BatchPlan:
    """Return the plan that decides every batch of a run with `config` on `stream`."""
    training = config.training
    return batch_plan(
        stream,
        config.data,
        sequences_per_step=training.sequences_per_step,
        micro_batch_size=training.micro_batch_size,
        seed=training.seed,
    )


def epochs(config: RunConfig, mixture: Mixture) -> dict[str, float]:
    """Return the number of passes through each source, or through all text if sources are not weighted."""
    sequences = config.training.sequences_per_step * config.training.max_steps
    return {name or ALL: round(seen, 3) for name, seen in mixture.epochs(sequences).items()}


def repeats(config: RunConfig, mixture: Mixture, *, step: int = 0) -> bool:
    """Whether a run of `config`, which has done `step` steps, sees any source more than once."""
    sequences = config.training.sequences_per_step * max(config.training.max_steps, step)
    return any(seen > 1 for seen in mixture.epochs(sequences).values())
