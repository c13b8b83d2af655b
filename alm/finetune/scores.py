"""Scores of a model before and after: of answers that are held out, and of the text that it was trained on before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch

from alm.corpus.split import VALIDATION
from alm.data.loader import NO_TARGET, micro_batch
from alm.export.held_out import HeldOut, held_out
from alm.export.source import Source, load_source
from alm.packing.shards import PackedData
from alm.training.config import RunConfig
from alm.training.validate import rows_for


@torch.inference_mode()
def of_answers(base: Path, packed: PackedData, config: RunConfig) -> float | None:
    """Return bits per byte of the answers that a run with `config` will be scored on; None if none are held out."""
    source, stream = load_source(base), packed.split(VALIDATION)
    widths = torch.from_numpy(source.tokenizer.bytes_per_id.astype("int64"))
    rows = rows_for(stream, source.tokenizer.bytes_per_id, wanted_bytes=config.validation.bytes)
    model, nats, size = source.network, 0.0, 0
    for row in rows:
        batch = micro_batch(stream, row[None])
        losses = model.token_losses(model(batch.inputs, documents=batch.documents), batch.targets)
        bytes_of = widths[batch.targets.clamp_min(0)] * (batch.targets != NO_TARGET)
        nats += losses[bytes_of > 0].double().sum().item()
        size += int(bytes_of.sum())
    return nats / math.log(2) / size if size else None


def about_base_text(base: Path, run: Path) -> Iterator[str]:
    """Say how well the model of `run` knows the text that `base` was trained on, if that is still there."""
    source = load_source(base)
    text = held_out(source)
    if text is None:
        return
    before, after = (_bits_per_byte(text, each) for each in (source, load_source(run)))
    yield f"Text of the base model: {before:.3f} bits/byte before, {after:.3f} after ({after / before - 1:+.1%})"


def _bits_per_byte(text: HeldOut, source: Source) -> float:
    model = source.network
    return text.bits_per_byte(lambda inputs, targets: model.token_losses(model(inputs), targets))
