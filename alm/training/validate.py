"""Scores held-out text in bits per byte, which can be compared across tokenizers.

Bits per byte = sum of -log2 p(token) / sum of the UTF-8 bytes of the tokens, over tokens that stand
for bytes: the end-of-text token stands for none and counts in neither sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray

from alm.data.loader import NO_TARGET, MicroBatch, micro_batch
from alm.data.order import Positions, permute
from alm.device import Choice, autocast
from alm.packing.shards import TokenStream
from alm.training.parallel import Parallelism

CONFIDENCE = 0.95
# Neighbouring rows often hold parts of one document, so they are not independent; groups of them nearly are. This many
# groups are enough to estimate their spread.
GROUPS = 40
FEWEST_GROUPS = 8


@dataclass(frozen=True)
class Score:
    """`loss` is in nats per target token of the same rows; `margin` is that of `confidence_margin`."""

    loss: float
    bits_per_byte: float
    margin: float | None


def rows_for(stream: TokenStream, bytes_per_id: NDArray[np.int32], *, wanted_bytes: int) -> Positions:
    """Return rows of `stream` that hold `wanted_bytes` bytes of text, or all rows if it holds fewer.

    They are spread over the stream, so that every source has its share, and are the same for every run.
    """
    # A fixed seed, not the run's: scores of runs with other seeds stay comparable.
    rows = permute(np.arange(stream.sequences), size=stream.sequences, seed=0, epoch=0)
    seen = 0
    for taken, row in enumerate(rows, start=1):
        targets = micro_batch(stream, np.array([row])).targets.numpy()
        seen += int(bytes_per_id[targets[targets != NO_TARGET]].sum())
        if seen >= wanted_bytes:
            return np.sort(rows[:taken])
    return np.sort(rows)


@torch.no_grad()
def validate(
    parallelism: Parallelism,
    stream: TokenStream,
    bytes_per_id: NDArray[np.int32],
    *,
    rows: Positions,
    micro_batch_size: int,
    choice: Choice,
    should_stop: Callable[[], bool] = bool,
) -> Score | None:
    """Return the score of `rows` of `stream`, shared by the ranks, or None when asked to stop.

    The score has the same bits at any number of ranks: micro-batches are the same, and sums of rows are added up in
    their order. The model's training mode is restored.
    """
    was_training = parallelism.objective.training
    parallelism.objective.eval()
    sums = _sums(parallelism, stream, rows, bytes_per_id, micro_batch_size, choice, should_stop)
    parallelism.objective.train(was_training)
    if sums is None:
        return None
    nats, targets, text_nats, size = sums.sum(0).tolist()
    margin = confidence_margin(sums[:, 2].numpy(), sums[:, 3].numpy().astype(np.int64))
    return Score(nats / targets, text_nats / math.log(2) / max(size, 1), margin)


def _sums(
    parallelism: Parallelism,
    stream: TokenStream,
    rows: Positions,
    bytes_per_id: NDArray[np.int32],
    micro_batch_size: int,
    choice: Choice,
    should_stop: Callable[[], bool],
) -> torch.Tensor | None:
    """Return (rows, 4) float64, the `_row_sums` of each row, on every rank; None when asked to stop."""
    world, widths = parallelism.world, torch.from_numpy(bytes_per_id.astype(np.int64))
    sums = torch.zeros(len(rows), 4, dtype=torch.float64)
    starts = range(0, len(rows), micro_batch_size)
    for first in range(0, len(starts), world.size):
        if should_stop():
            return None
        # A rank without work repeats the last micro-batch: with FSDP every forward needs all ranks.
        own = first + world.rank
        part = slice(start := starts[min(own, len(starts) - 1)], start + micro_batch_size)
        found = _row_sums(parallelism, micro_batch(stream, rows[part]), widths, choice)
        if own < len(starts):
            sums[part] = found
    return world.sum_(sums)  # each row is zero on all ranks but one, so the sum rounds nothing


def _row_sums(parallelism: Parallelism, batch: MicroBatch, widths: torch.Tensor, choice: Choice) -> torch.Tensor:
    """Return (B, 4) float64 on the CPU, for each row: nats, targets, nats of targets that stand for bytes, and these
    bytes.
    """
    documents = None if batch.documents is None else batch.documents.to(choice.device)
    with autocast(choice.device, choice.precision):
        losses = parallelism.token_losses(batch.inputs.to(choice.device), batch.targets.to(choice.device), documents)
    losses, is_target = losses.cpu().double(), batch.targets != NO_TARGET
    bytes_of = widths[batch.targets.clamp_min(0)] * is_target
    return torch.stack([losses, is_target, losses * (bytes_of > 0), bytes_of.double()]).sum(2).T


def confidence_margin(nats: NDArray[np.float64], sizes: NDArray[np.int64]) -> float | None:
    """Return half the width of the confidence interval around sum(nats) / sum(sizes) / ln 2, in bits per byte.

    `nats` (R,) and `sizes` (R,), in bytes, are sums over each of R rows, in the order of the stream. The ratio of two
    sums is linearised and its variance taken between groups of rows (Cochran 1977, "Sampling Techniques", section 6.4,
    without the finite population correction: the question is how another text of the same kind would score), and
    Student's t gives the width. It holds as long as documents are not much longer than a group. Returns None if there
    are too few rows for that, or no text in them.
    """
    groups = min(len(nats), GROUPS)
    total = int(sizes.sum())
    if groups < FEWEST_GROUPS or not total:
        return None
    firsts = np.arange(groups) * len(nats) // groups
    group_nats, group_sizes = np.add.reduceat(nats, firsts), np.add.reduceat(sizes, firsts)
    excess = group_nats - group_sizes * (nats.sum() / total)  # (G,), adds up to 0
    variance = groups / (groups - 1) * float(np.square(excess).sum()) / total**2
    return student_t(groups - 1) * math.sqrt(variance) / math.log(2)


def student_t(degrees: int, *, confidence: float = CONFIDENCE) -> float:
    """Return Student's t of a two-sided interval: Abramowitz and Stegun 26.7.5, within 0.002 from 7 degrees on."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3
