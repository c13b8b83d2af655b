"""Bits per byte of a run's held-out text, scored by any model. R rows, B rows at a time, T tokens."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alm.corpus.split import VALIDATION
from alm.data.loader import NO_TARGET, MicroBatch, micro_batch
from alm.errors import AlmError
from alm.export.source import Source
from alm.files import sha256
from alm.packing.shards import METADATA_NAME, PackedData, open_packed
from alm.training.run import run_folder
from alm.training.validate import rows_for

# Enough text to show differences, and scored in seconds.
TEXT_BYTES = 65_536
_ROWS_AT_A_TIME = 4

TokenLosses = Callable[[Tensor, Tensor], Tensor]
"""Function from ids (B, T) and their next ids (B, T) to -ln p of each next id (B, T)."""


@dataclass(frozen=True)
class HeldOut:
    """Some rows of held-out text, and the number of bytes of each id (V,)."""

    batches: tuple[MicroBatch, ...]
    widths: Tensor

    @torch.inference_mode()
    def bits_per_byte(self, token_losses: TokenLosses) -> float:
        """Score as `alm.training.validate` does: tokens without bytes count in neither sum."""
        nats = size = 0.0
        for batch in self.batches:
            bytes_of = self.widths[batch.targets.clamp_min(0)] * (batch.targets != NO_TARGET)
            losses = token_losses(batch.inputs, batch.targets).double()
            nats += losses[bytes_of > 0].sum().item()
            size += bytes_of.sum().item()
        return nats / math.log(2) / max(size, 1)


def held_out(source: Source) -> HeldOut | None:
    """Read about `TEXT_BYTES` of the run's held-out text; None if its data is gone, changed, or holds none out.

    None for conversations too: other tools would let those in one row see each other.
    """
    packed = data_of_run(source)
    if isinstance(packed, str):
        return None
    stream = packed.split(VALIDATION)
    if not stream.sequences or stream.is_masked:
        return None
    widths = source.tokenizer.bytes_per_id
    rows = rows_for(stream, widths, wanted_bytes=TEXT_BYTES)
    parts = [rows[start : start + _ROWS_AT_A_TIME] for start in range(0, len(rows), _ROWS_AT_A_TIME)]
    return HeldOut(
        tuple(micro_batch(stream, part) for part in parts), torch.from_numpy(np.asarray(widths, dtype=np.int64))
    )


def data_of_run(source: Source) -> PackedData | str:
    """Return the packed data that the run of `source` was trained on, or why it cannot be used."""
    if source.run is None:
        return f"`{source.path.parent}` has no text of its own"
    metadata = run_folder.read_metadata(source.run)
    folder = Path(os.path.normpath(source.run / metadata.data))
    try:
        packed = open_packed(folder)
        is_same = sha256(folder / METADATA_NAME) == metadata.data_sha256
    except AlmError as error:
        return error.message
    if not is_same or packed.metadata.tokenizer_sha256 != source.tokenizer.sha256:
        return f"`{folder}` has changed since the run was trained on it"
    return packed
