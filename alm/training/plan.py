"""What a pretraining run would be, before anything is spent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alm import device
from alm.corpus.split import TRAIN, VALIDATION
from alm.distributed import Place
from alm.model.count import count
from alm.packing.shards import open_packed
from alm.training.config import RunConfig
from alm.training.loop import planned
from alm.training.pretrain import epochs
from alm.training.ranks import check
from alm.training.settle import with_data


@dataclass(frozen=True)
class Plan:
    """Sizes of a run."""

    parameters: int
    tokens_per_step: int
    steps: int
    tokens: int
    training_sequences: int
    validation_sequences: int
    epochs: dict[str, float]
    training_flops: float
    memory: dict[str, int]  # bytes at the peak, by part
    memory_bytes: int  # of the GPU, or what the process grows by
    device: str
    precision: str
    ranks: int


def plan(config: RunConfig, *, data: Path, device_name: str = "auto", ranks: int = 1) -> Plan:
    """The run that `pretrain` would do with the same arguments as so many ranks; nothing is written."""
    check(config, Place(size=ranks))
    packed = open_packed(data)
    config = with_data(config, packed)
    choice = device.choose(device_name, precision=config.training.precision)
    counted = count(config.model)
    seq_len = packed.metadata.seq_len
    tokens_per_step = config.training.sequences_per_step * seq_len
    tokens = tokens_per_step * config.training.max_steps
    sequences = packed.metadata.sequences(TRAIN)
    on_cpu = choice.device.type == "cpu"
    memory = counted.memory(
        config.training.micro_batch_size,
        seq_len,
        precision=choice.precision,
        accumulates=config.training.gradient_accumulation > 1,
        on_gpu=not on_cpu,
    )
    mixture = planned(config, packed.split(TRAIN)).mixture
    return Plan(
        parameters=counted.total,
        tokens_per_step=tokens_per_step,
        steps=config.training.max_steps,
        tokens=tokens,
        training_sequences=sequences,
        validation_sequences=packed.metadata.sequences(VALIDATION),
        epochs=epochs(config, mixture),
        training_flops=tokens * counted.training_flops_per_token(seq_len),
        memory=vars(memory),
        memory_bytes=memory.of_process if on_cpu else memory.total,
        device=str(choice.device),
        precision=choice.precision,
        ranks=ranks,
    )
