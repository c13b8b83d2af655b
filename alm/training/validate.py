"""Scoring held-out text in bits per byte, which compares across tokenizers.

Bits per byte = sum of -log2 p(token) / sum of the UTF-8 bytes of the tokens, over tokens that stand
for bytes: the end-of-text token stands for none and counts in neither sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from alm.data.loader import MicroBatch, micro_batch
from alm.data.order import Positions, permute
from alm.device import Choice, autocast
from alm.packing.shards import TokenStream
from alm.training.parallel import Sharing


@dataclass(frozen=True)
class Score:
    """`loss` in nats per target token of the same rows."""

    loss: float
    bits_per_byte: float


def rows_for(stream: TokenStream, bytes_per_id: NDArray[np.int32], *, wanted_bytes: int) -> Positions:
    """Rows of `stream` that hold `wanted_bytes` bytes of text, or all of them when it holds fewer.

    Spread over the whole stream, so that every source has its share, and the same for every run.
    """
    rows = permute(np.arange(stream.sequences), size=stream.sequences, seed=0, epoch=0)
    seen = 0
    for taken, row in enumerate(rows, start=1):
        ids = stream.tokens(int(row) * stream.seq_len + 1, stream.seq_len)
        seen += int(bytes_per_id[ids].sum())
        if seen >= wanted_bytes:
            return np.sort(rows[:taken])
    return np.sort(rows)


@torch.no_grad()
def validate(
    sharing: Sharing,
    stream: TokenStream,
    bytes_per_id: NDArray[np.int32],
    *,
    rows: Positions,
    micro_batch_size: int,
    choice: Choice,
) -> Score:
    """The score of `rows` of `stream`, which ranks share; leaves the model in training mode as it was.

    The same bits at any number of ranks: micro-batches are the same, and sums of rows are added up in their order.
    """
    world, was_training = sharing.world, sharing.objective.training
    sharing.objective.eval()
    widths = torch.from_numpy(bytes_per_id.astype(np.int64))
    sums = torch.zeros(len(rows), 3, dtype=torch.float64)  # of a row: nats, nats of text, bytes of text
    starts = range(0, len(rows), micro_batch_size)
    for first in range(0, len(starts), world.size):
        # Where nothing is left, a rank repeats the last: with FSDP every forward takes all ranks.
        own = first + world.rank
        part = slice(start := starts[min(own, len(starts) - 1)], start + micro_batch_size)
        found = _row_sums(sharing, micro_batch(stream, rows[part]), widths, choice)
        if own < len(starts):
            sums[part] = found
    nats, text_nats, size = world.sum_(sums).sum(0).tolist()  # other ranks' rows are zeros here: nothing is rounded
    sharing.objective.train(was_training)
    return Score(nats / (len(rows) * stream.seq_len), text_nats / math.log(2) / max(size, 1))


def _row_sums(sharing: Sharing, batch: MicroBatch, widths: torch.Tensor, choice: Choice) -> torch.Tensor:
    """(B, 3) float64 on the CPU: nats, nats of tokens that stand for bytes, and those bytes, of each row."""
    with autocast(choice.device, choice.precision):
        losses = sharing.objective.token_losses(batch.inputs.to(choice.device), batch.targets.to(choice.device))
    losses, bytes_of = losses.cpu().double(), widths[batch.targets.clamp_min(0)] * (batch.targets >= 0)
    return torch.stack([losses.sum(1), (losses * (bytes_of > 0)).sum(1), bytes_of.sum(1).double()], 1)
