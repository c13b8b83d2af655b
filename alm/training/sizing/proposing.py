"""Proposes a run that is worth a given time on this device, from measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from alm import device as devices
from alm.corpus.split import TRAIN
from alm.device import Choice
from alm.model.config import ModelConfig
from alm.model.count import count
from alm.packing.shards import open_packed
from alm.training.config import RunConfig, TrainingConfig
from alm.training.sizing import probe
from alm.training.sizing.budget import BYTES_PER_TOKEN, Proposal, propose
from alm.training.sizing.memory import MemoryLimit
from alm.training.sizing.precision import settled

# A first guess: the share of the rate of matrix products that training a small model reaches (docs/benchmarks.md).
TYPICAL_SHARE = 0.5
_MOST_TRIES, _TRY_SECONDS = 3, 0.5


def proposed(
    seconds: float,
    *,
    data: Path | None = None,
    seq_len: int | None = None,
    tokens: int | None = None,
    device_name: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
) -> Proposal:
    """Return a run worth `seconds` on the device.

    Its speed is first estimated from matrix products, then measured with the proposed model, until the proposal stays
    the same.
    """
    choice = devices.choose(device_name, precision=precision)
    vocab_size, text_bytes = None, None if tokens is None else round(tokens * BYTES_PER_TOKEN)
    if data is not None:
        metadata = open_packed(data).metadata
        vocab_size, seq_len = metadata.vocab_size, metadata.seq_len
        text_bytes = round(metadata.sequences(TRAIN) * seq_len * BYTES_PER_TOKEN)
    flops_per_second = TYPICAL_SHARE * devices.matmul_rate(choice.device, choice.precision)
    found: Proposal | None = None
    for _ in range(_MOST_TRIES):
        before, found = (
            found,
            _proposal_at(
                flops_per_second, seconds, choice, vocab_size=vocab_size, seq_len=seq_len, text_bytes=text_bytes
            ),
        )
        if before is not None and before.preset == found.preset:
            break
        training = found.config.training.model_copy(update={"precision": precision})
        config = found.config.model_copy(update={"training": training})
        choice = settled(config, device_name, seq_len=found.seq_len)
        rows = probe.random_rows(found.vocab_size, seq_len=found.seq_len)
        rates = probe.measure_steps(config, choice, rows, seq_len=found.seq_len, seconds=_TRY_SECONDS)
        speed = training.sequences_per_step * found.seq_len / rates.step(training.gradient_accumulation)
        flops_per_second = speed * count(found.config.model).training_flops_per_token(found.seq_len)
    assert found is not None
    return found


def _proposal_at(
    flops_per_second: float,
    seconds: float,
    choice: Choice,
    *,
    vocab_size: int | None,
    seq_len: int | None,
    text_bytes: int | None,
) -> Proposal:
    def rate(model: ModelConfig, tokens: int) -> float:
        return flops_per_second / count(model).training_flops_per_token(tokens)

    def fits(model: ModelConfig, sequences: int, tokens: int) -> bool:
        config = RunConfig(model=model, training=TrainingConfig(micro_batch_size=sequences))
        largest = MemoryLimit(config, tokens, choice).largest()
        return largest is None or sequences <= largest

    return propose(
        seconds, tokens_per_second=rate, vocab_size=vocab_size, seq_len=seq_len, text_bytes=text_bytes, fits=fits
    )
