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
from alm.model.transformer import Transformer
from alm.packing.shards import TokenStream
from alm.training.interval import margin


@dataclass(frozen=True)
class Score:
    """`loss` in nats per target token of the same rows; `margin` as `interval.margin` has it."""

    loss: float
    bits_per_byte: float
    margin: float | None


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
    widths = torch.from_numpy(bytes_per_id.astype(np.int64))
    nats = 0.0
    text_nats, sizes = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
    for start in range(0, len(rows), micro_batch_size):
        if should_stop():
            model.train(was_training)
            return None
        part = slice(start, start + micro_batch_size)
        batch = micro_batch(stream, rows[part])
        targets = batch.targets.to(choice.device)
        with autocast(choice.device, choice.precision):
            losses = model.token_losses(model(batch.inputs.to(choice.device)), targets)
        losses = losses.cpu().double()  # there: Metal has no fp64
        bytes_of = widths[batch.targets]
        nats += float(losses.sum())
        text_nats[part] = (losses * (bytes_of > 0)).sum(dim=1).numpy()
        sizes[part] = bytes_of.sum(dim=1).numpy()
    model.train(was_training)
    bits = text_nats.sum() / math.log(2) / max(sizes.sum(), 1)
    return Score(nats / (len(rows) * stream.seq_len), float(bits), margin(text_nats, sizes))
