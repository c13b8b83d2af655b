"""What saving costs a run: pico with 32,000 tokens on this machine's CPU, with checkpoints and without in turn.

A block of steps that begins with a save, and ends when it is on the disk, against a block without. What the first
costs more is the whole price of a checkpoint, the thread's work included; what the loop itself waits for is timed
apart. Both are given as a share of the steps between two checkpoints.

    python benchmarks/checkpoint.py [INTERVAL ...]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import paired
import torch

from alm import device
from alm.checkpoint.background import CheckpointWriter
from alm.checkpoint.retain import Retention
from alm.config import presets
from alm.config.load import Part, load
from alm.data.loader import MicroBatch
from alm.training import state
from alm.training.config import MODEL_SECTIONS, RunConfig
from alm.training.step import train_step

VOCAB_SIZE, BATCH, LENGTH = 32_000, 2, 512
STEPS, ROUNDS = 1, 7
INTERVALS = (25, 50)


class Run:
    """A run of pico without a loader: the same batch again and again."""

    def __init__(self, folder: Path) -> None:
        self.config = load(
            RunConfig, [Part(presets.find("pico"), MODEL_SECTIONS)], overrides=[f"model.vocab_size={VOCAB_SIZE}"]
        )
        self.choice = device.choose("cpu")
        self.state = state.init_state(self.config, self.choice)
        ids = torch.randint(VOCAB_SIZE, (BATCH, LENGTH + 1), generator=torch.Generator().manual_seed(0))
        self.batch = MicroBatch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        self.stalls: list[float] = []
        self.writer = CheckpointWriter(folder, Retention(last=2), on_saved=lambda *_: None, on_full=_raise)

    def steps(self) -> None:
        """A block without a checkpoint."""
        for _ in range(STEPS):
            train_step(
                self.state,
                [self.batch],
                targets=self.batch.target_count(),
                choice=self.choice,
                lr_factor=0.1,
                clip_norm=1.0,
                seed=0,
                should_stop=bool,
            )

    def saving(self) -> None:
        """A block with one."""
        since = time.perf_counter()
        self.writer.save(state.snapshot(self.state, self.config, environment={}, tokenizer_sha256="", data_sha256=""))
        self.stalls.append(time.perf_counter() - since)
        self.steps()
        self.writer.wait()


def _raise(error: Exception) -> None:
    raise error


def main() -> None:
    """Rounds in turn, then the shares."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        run.steps()
        run.saving()  # allocates the buffers, which is paid once
        first, run.stalls = run.stalls[0], []
        pairs = [(paired.measured(run.saving), paired.measured(run.steps)) for _ in range(ROUNDS)]
        size = max(path.stat().st_size for path in Path(folder).glob("*.pt"))
    plain = [cost for _, cost in pairs]
    step = paired.Cost(*(statistics.median(values) / STEPS for values in zip(*plain, strict=True)))
    print(f"checkpoints: pico, {VOCAB_SIZE:,} tokens, {BATCH} x {LENGTH}, {run.choice.precision}, {size / 1e6:.0f} MB")
    print(f"  a step           {step.cpu:8.3f} CPU s  {step.wall:8.3f} s wall")
    print(f"  the loop waits   {statistics.median(run.stalls):8.3f} s wall for a save (the first {first:.3f})")
    for interval in [int(word) for word in sys.argv[1:]] or INTERVALS:
        waits = [stall / (interval * step.wall) for stall in run.stalls]
        cpu = [(a.cpu - b.cpu) / (interval * step.cpu) for a, b in pairs]
        wall = [(a.wall - b.wall) / (interval * step.wall) for a, b in pairs]
        print(f"  every {interval} steps, as a share of a step, averaged:")
        for name, shares in (("the loop waits", waits), ("all CPU seconds", cpu), ("all wall seconds", wall)):
            print(f"    {name:<16}  {paired.with_interval(shares)}")


if __name__ == "__main__":
    main()
