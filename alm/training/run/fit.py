"""Fits a run into the memory and the time of its device, before it starts and when memory is full."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from alm import device
from alm.corpus.split import TRAIN, VALIDATION
from alm.device import Choice
from alm.distributed import World
from alm.errors import AlmError
from alm.events import Listener, Noted, Warned
from alm.formatting import size
from alm.model.count import count
from alm.packing.shards import PackedData
from alm.tokenizers.file import Tokenizer
from alm.training.config import RunConfig
from alm.training.run.time_budget import TimeBudget
from alm.training.sizing import oom_cache, probe
from alm.training.sizing.budget import fit_steps
from alm.training.sizing.eta import START_SECONDS, TimeCosts, time_costs
from alm.training.sizing.memory import (
    MOST_SEQUENCES,
    SURE_SHARE,
    USABLE_SHARE,
    describe_curve,
    halve_micro_batch,
    largest_micro_batch,
    micro_batch_flags,
    peak_memory,
    reproducible_sizes,
    split_step,
)
from alm.training.sizing.probe import StepTimings
from alm.training.validate import rows_for


@dataclass(frozen=True)
class DeviceLimits:
    """The memory and the speed of the device of a run, to which its configuration is fitted.

    `free_bytes` is the free memory of the device before anything was allocated; None if unknown. Ranks call the methods
    together, except `remember`.
    """

    packed: PackedData
    choice: Choice
    world: World
    free_bytes: int | None
    on_event: Listener

    @property
    def _seq_len(self) -> int:
        return self.packed.metadata.seq_len

    def fit_memory(self, config: RunConfig) -> RunConfig:
        """Return `config` with micro-batches for which every rank has memory, tried where counting leaves doubt.

        A rank that runs out of memory in a step would leave the others waiting for it. A single process finds out in
        its first steps. With fsdp no rank can try by itself.
        """
        config = self._fit_by_counting(config)
        if self.world.size == 1 or config.training.parallel == "fsdp":
            return config
        while self.world.greatest(int(not self._fits(config))):
            config = self.halved(config)
        return config

    def _fit_by_counting(self, config: RunConfig) -> RunConfig:
        """Return `config` cut to what fits into a CPU's memory by counting: a process that takes more is killed."""
        if self.choice.device.type != "cpu":
            return config
        free, training = self._free_bytes, config.training
        sizes = reproducible_sizes(training, ranks=self.world.size)
        found = largest_micro_batch(lambda sequences: self._needed(config, sequences), free, sizes=sizes)
        most = -self.world.greatest(-(MOST_SEQUENCES if found is None else found))
        own = training.micro_batch_size
        if sizes is None:
            fits = own <= most
        else:  # with `reproducible`, larger micro-batches may fit even if these do not (`reproducible_sizes`)
            is_full = free is not None and self._needed(config, own) > USABLE_SHARE * free
            fits = not self.world.greatest(int(is_full))
        if fits:
            return config
        least = 1 if sizes is None else own
        smaller = split_step(training, most=most or least, ranks=self.world.size) or training
        change = f"using {smaller.micro_batch_size} instead, {describe_curve(config)}"
        if smaller == training:
            change = "the system may kill this run"
        self.on_event(
            Warned(
                f"micro-batches of {training.micro_batch_size} sequences need {size(self._needed(config))} and "
                f"{size(free or 0)} are free: {change}",
                None if most else "a smaller model is safer: `alm plan` names the largest that fits",
            )
        )
        return config.model_copy(update={"training": smaller})

    @property
    def _free_bytes(self) -> int | None:
        """Free bytes of this rank: ranks on one machine share the memory of its CPU."""
        if self.free_bytes is None or self.choice.device.type != "cpu":
            return self.free_bytes
        return self.free_bytes // self.world.local_size

    def _needed(self, config: RunConfig, micro_batch_size: int | None = None) -> int:
        on_cpu, precision = self.choice.device.type == "cpu", self.choice.precision
        return peak_memory(
            config,
            seq_len=self._seq_len,
            precision=precision,
            on_cpu=on_cpu,
            micro_batch_size=micro_batch_size,
            ranks=self.world.size,
        ).total

    def _fits(self, config: RunConfig) -> bool:
        if self._free_bytes is not None and self._needed(config) < SURE_SHARE * self._free_bytes:
            return True
        rows = probe.rows_of(self.packed.split(TRAIN))
        return probe.fits(config, self.choice, rows, seq_len=self._seq_len)

    def fit_time(self, config: RunConfig, *, started: float, finish_by: float) -> tuple[RunConfig, TimeBudget]:
        """Return `config` with the steps that will be done by `finish_by`, from measured ones.

        `started` is when the command started; both are of `time.monotonic`.
        """
        began = time.monotonic()
        config, rates = self._measure(config)
        spent = self._costs(config, rates)
        now = time.monotonic()
        chosen = self.world.from_main(lambda: fit_steps(config, spent, seconds=finish_by - now, spent=now - started))
        self.on_event(
            Noted(
                f"{chosen.training.max_steps:,} steps of {spent.step:.3g} s fit into the time "
                f"(measured in {time.monotonic() - began:.1f} s)"
            )
        )
        return chosen, TimeBudget(finish_by, self._costs(chosen, rates), world=self.world, on_event=self.on_event)

    def _costs(self, config: RunConfig, rates: StepTimings) -> TimeCosts:
        widths = Tokenizer.load(self.packed.tokenizer_path).bytes_per_id
        scored = len(rows_for(self.packed.split(VALIDATION), widths, wanted_bytes=config.validation.bytes))
        return time_costs(config, rates, validation_sequences=scored, start=START_SECONDS, ranks=self.world.size)

    def _measure(self, config: RunConfig) -> tuple[RunConfig, StepTimings]:
        rows = probe.rows_of(self.packed.split(TRAIN))
        while True:
            try:
                return config, probe.measure_steps(config, self.choice, rows, seq_len=self._seq_len, world=self.world)
            except (RuntimeError, MemoryError) as error:
                if not device.is_out_of_memory(error):
                    raise
                if self.world.size > 1:  # the other ranks are in the middle of a step
                    self.remember(config)
                    raise self.out_of_memory(config) from error
                config = self.halved(config)
            probe.release_memory(self.choice.device)  # outside `except`: the traceback refers to the model

    def halved(self, config: RunConfig) -> RunConfig:
        """Return `config` with the next smaller micro-batches, with a warning, and remember it; `AlmError` if none."""
        self.remember(config)
        before = config.training
        smaller = halve_micro_batch(before, ranks=self.world.size)
        if smaller is None:
            raise self.out_of_memory(config)
        self.on_event(
            Warned(
                f"the memory of {self.choice.device} is full: a step of {before.sequences_per_step} sequences is cut "
                f"into micro-batches of {smaller.micro_batch_size} instead of {before.micro_batch_size}: "
                f"{describe_curve(config)}"
            )
        )
        return config.model_copy(update={"training": smaller})

    def remember(self, config: RunConfig) -> None:
        """Record for later runs that the micro-batches of `config` do not fit."""
        vocab_size = self.packed.metadata.vocab_size
        key = oom_cache.key(config, self.choice.device, seq_len=self._seq_len, vocab_size=vocab_size)
        oom_cache.remember(key, failed=config.training.micro_batch_size, free_bytes=self.free_bytes)

    @contextlib.contextmanager
    def weights_must_fit(self, config: RunConfig) -> Iterator[None]:
        """Turn full memory in this context into the error that ends the run: smaller micro-batches would not help."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not device.is_out_of_memory(error):
                raise
            raise self.out_of_memory(config, in_step=False) from error

    def out_of_memory(self, config: RunConfig, *, in_step: bool = True) -> AlmError:
        """Return the error for full memory that ends the run, in a step or before the first."""
        training = config.training
        smaller = halve_micro_batch(training, ranks=self.world.size) if in_step else None
        hint = "choose a smaller model: `--model 10m`, or `--model 1m`"
        if smaller is not None:
            again = f"run the same command again (this is remembered), or add `{micro_batch_flags(smaller)}`"
            hint = f"{again}: {describe_curve(config)}"
        return AlmError(
            f"the memory of {self.choice.device} is full: {count(config.model).total:,} parameters and micro-batches "
            f"of {training.micro_batch_size} sequences do not fit",
            hint=hint,
        )
