"""Measures a few real steps of a run: their time, and whether they fit into memory. Nothing is kept or written."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from alm import device as devices
from alm.data.loader import MicroBatch, micro_batch
from alm.device import Choice, wait_for
from alm.distributed import World
from alm.generation.config import SamplingConfig
from alm.generation.generate import generate
from alm.packing.shards import TokenStream
from alm.training.config import RunConfig
from alm.training.state import TrainState, init_state
from alm.training.step import train_step

SECONDS = 2.0  # of measured steps; warming up, scoring and generating come on top
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 50
_GENERATED_TOKENS = 12
_NO_TOKEN = -1  # ends no text

Batches = Callable[[int], MicroBatch]
"""A micro-batch of the given number of sequences."""


@dataclass(frozen=True)
class StepTimings:
    """Seconds of a micro-batch, of the update after the last one, of scoring a sequence, and of a generated token.

    The micro-batch has the size in the measured configuration; all times are those of one rank.
    """

    micro_batch: float
    update: float
    validation_sequence: float
    generated_token: float

    def step(self, micro_batches: int) -> float:
        """Return the seconds of a step with `micro_batches` on each rank."""
        return micro_batches * self.micro_batch + self.update


def measure_steps(
    config: RunConfig,
    choice: Choice,
    batches: Batches,
    *,
    seq_len: int,
    world: World | None = None,
    seconds: float = SECONDS,
    apart: bool = False,
) -> StepTimings:
    """Measure steps for about `seconds`, after warming up; ranks call it together.

    If a micro-batch takes long, a smaller one is measured and its time scaled by the number of sequences. With one
    micro-batch per step, its time is separated from that of the update only with `apart`. The model is freed
    afterwards. Raises PyTorch's error when memory is full.
    """
    devices.matmul_rate(choice.device, choice.precision)  # a run measures it at its start; here it also wakes the CPU
    with devices.unchanged_random_state(choice.device):  # dropout draws random numbers
        timings = _Probe(init_state(config, choice, world, seq_len=seq_len), config, choice, batches, seconds).timings(
            apart=apart
        )
    release_memory(choice.device)
    return timings


def release_memory(device: torch.device) -> None:
    """Return unreferenced memory to the device, or to the system."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    else:
        devices.give_back_freed_memory()


def rows_of(stream: TokenStream) -> Batches:
    """Return batches of the first rows of `stream`, repeated if it has too few."""
    import numpy as np

    return lambda number: micro_batch(stream, np.arange(number, dtype=np.int64) % stream.sequences)


def random_rows(vocab_size: int, *, seq_len: int) -> Batches:
    """Return batches of random ids, for a text that does not exist yet."""
    draw = torch.Generator().manual_seed(0)

    def batch(number: int) -> MicroBatch:
        ids = torch.randint(vocab_size, (number, seq_len + 1), generator=draw)
        return MicroBatch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())

    return batch


def fits(config: RunConfig, choice: Choice, batches: Batches, *, seq_len: int) -> bool:
    """Whether this rank, by itself, has memory for steps: two are tried, the second with the optimizer's moments."""
    found = _fits(config, choice, batches, seq_len=seq_len)
    release_memory(choice.device)
    return found


def _fits(config: RunConfig, choice: Choice, batches: Batches, *, seq_len: int) -> bool:
    try:
        probe = _Probe(init_state(config, choice, seq_len=seq_len), config, choice, batches, SECONDS)
        for micro_batches in (1, min(2, config.training.gradient_accumulation)):
            probe.round(config.training.micro_batch_size, micro_batches=micro_batches)
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
        return False
    return True


@dataclass(frozen=True)
class _Probe:
    """The state of a new run, and how to measure its steps."""

    state: TrainState
    config: RunConfig
    choice: Choice
    batches: Batches
    seconds: float

    def timings(self, *, apart: bool) -> StepTimings:
        size = self._size()
        in_pairs = apart or self._micro_batches > 1 or size < self.config.training.micro_batch_size
        self.round(size, micro_batches=1 + in_pairs)  # not counted: the optimizer creates its moments, and memory grows
        found = self._rounds(size, micro_batches=1 + in_pairs)
        first, last = (statistics.median(values) for values in zip(*found, strict=True))
        scale = self.config.training.micro_batch_size / size
        # The last micro-batch is timed together with the update. With one per step only their sum matters.
        micro, update = (scale * first, max(last - first, 0.0)) if in_pairs else (last, 0.0)
        return StepTimings(micro, update, self._scoring(size), self._generating())

    @property
    def _micro_batches(self) -> int:
        """Micro-batches of this rank in a step."""
        return self.config.training.gradient_accumulation // self.state.parallelism.world.size

    def _size(self) -> int:
        """Return the size of the micro-batches to time, cut to the time; all ranks use the smallest of any."""
        self.round(1, micro_batches=1)
        _, seconds = self.round(1, micro_batches=1)
        affordable = int(self.seconds / _FEWEST_ROUNDS / seconds)
        size = min(self.config.training.micro_batch_size, max(1, affordable))
        return -self.state.parallelism.world.greatest(-size)

    def _rounds(self, size: int, *, micro_batches: int) -> list[tuple[float, float]]:
        """Run rounds until the time is over, at least a few, and the same number on every rank."""
        seconds = max(sum(self.round(size, micro_batches=micro_batches)), 1e-6)
        fewest = _FEWEST_ROUNDS if seconds < self.seconds else 2
        number = self.state.parallelism.world.greatest(min(max(int(self.seconds / seconds), fewest), _MOST_ROUNDS))
        return [self.round(size, micro_batches=micro_batches) for _ in range(number)]

    def round(self, size: int, *, micro_batches: int) -> tuple[float, float]:
        """Return the seconds of each micro-batch before the last, and of the last with the update."""
        batch = self.batches(size)
        times: list[float] = []

        def note_time() -> bool:
            wait_for(self.choice.device)
            times.append(time.perf_counter())
            return False

        ranks = self.state.parallelism.world.size
        train_step(
            self.state,
            [batch] * micro_batches,
            targets=max(1, batch.target_count() * micro_batches * ranks),
            choice=self.choice,
            lr_factor=0.0,
            clip_norm=self.config.training.gradient_clip_norm,
            seed=self.config.training.seed,
            should_stop=note_time,
            z_weight=self.config.training.z_loss,
        )
        note_time()
        *_, last, end = times
        return (last - times[0]) / max(micro_batches - 1, 1), end - last

    @torch.no_grad()
    def _scoring(self, size: int) -> float:
        parallelism, batch, device = self.state.parallelism, self.batches(size), self.choice.device
        parallelism.objective.eval()
        with devices.autocast(device, self.choice.precision):
            seconds = self._seconds(
                lambda: parallelism.token_losses(batch.inputs.to(device), batch.targets.to(device)).sum().item()
            )
        parallelism.objective.train()
        return seconds / size

    def _generating(self) -> float:
        """Return the seconds of a token that follows a short text; 0 if a run generates none."""
        tokens = min(_GENERATED_TOKENS, self.config.model.max_position_embeddings - 1)
        if not self.state.parallelism.has_full_model or tokens < 1 or not self.config.samples.prompts:
            return 0.0
        sampling = SamplingConfig(max_tokens=tokens)

        def act() -> object:
            return list(generate(self.state.model, [0], sampling=sampling, end_of_text_id=_NO_TOKEN, plain=True))

        return self._seconds(act) / tokens

    def _seconds(self, act: Callable[[], object]) -> float:
        """Return the seconds of the second call: the first one warms up."""
        return devices.best_seconds({"": act}, self.choice.device, rounds=1)[""]
