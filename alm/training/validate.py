"""Scoring held-out text in bits per byte, which compares across tokenizers.

Bits per byte = sum of -log2 p(token) / sum of the UTF-8 bytes of the tokens, over tokens that stand
for bytes: the end-of-text token stands for none and counts in neither sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from alm.data.loader import micro_batch
from alm.data.order import Positions, permute
from alm.device import Choice, autocast
from alm.model.loss import token_losses
from alm.model.transformer import Transformer
from alm.packing.shards import TokenStream


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
    model: Transformer,
    stream: TokenStream,
    bytes_per_id: NDArray[np.int32],
    *,
    rows: Positions,
    micro_batch_size: int,
    choice: Choice,
    should_stop: Callable[[], bool] = bool,
) -> Score | None:
    """The score of `rows` of `stream`, None when asked to stop; leaves the model in training mode as it was."""
    was_training = model.training
    model.eval()
    widths = torch.from_numpy(bytes_per_id.astype(np.int64)).to(choice.device)
    nats = torch.zeros((), dtype=torch.float64)
    text_nats = torch.zeros((), dtype=torch.float64)
    size = 0
    for start in range(0, len(rows), micro_batch_size):
        if should_stop():
            model.train(was_training)
            return None
        batch = micro_batch(stream, rows[start : start + micro_batch_size])
        targets = batch.targets.to(choice.device)
        with autocast(choice.device, choice.precision):
            losses = token_losses(model(batch.inputs.to(choice.device)), model.head_weight, targets)
        bytes_of = widths[targets]
        nats += losses.double().sum().cpu() if choice.device.type != "mps" else losses.cpu().double().sum()
        text_nats += (losses * (bytes_of > 0)).cpu().double().sum()
        size += int(bytes_of.sum())
    model.train(was_training)
    return Score(float(nats) / (len(rows) * stream.seq_len), float(text_nats) / math.log(2) / max(size, 1))
