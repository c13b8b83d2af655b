"""Plans a pretraining run: size, memory, time and cost, before anything is spent."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from alm import device as devices
from alm.available import usable_processors
from alm.device import Choice
from alm.distributed import Place
from alm.errors import ConfigError
from alm.events import Listener, ignore
from alm.model.count import Count, count
from alm.optim.schedules import warmup_steps
from alm.training.config import RunConfig, TrainingConfig
from alm.training.plan_data import Text, assumed_text, packed_text
from alm.training.run.ranks import check, chosen
from alm.training.sizing import compiling, oom_cache, precision, probe
from alm.training.sizing.budget import TOKENS_PER_PARAMETER, fitted
from alm.training.sizing.costs import START_SECONDS, Costs, costs, times
from alm.training.sizing.memory import MemoryLimit, checkpoint_bytes, halved, keeps_curve

JOULES_PER_KWH, SECONDS_PER_HOUR = 3.6e6, 3600


@dataclass(frozen=True)
class Cost:
    """Cost of running: watts drawn, and the price of an hour in any currency; None if not given."""

    watts: float | None = None
    price_per_hour: float | None = None


NO_COST = Cost()


@dataclass(frozen=True)
class Plan:
    """Numbers of a run. Times are None if nothing was measured, numbers of the text if it is unknown.

    `memory` has the bytes at the peak by part, `memory_bytes` their sum: of the GPU, or the growth of the process.
    `process_bytes` is the size of a process on a CPU before it trains. `largest_micro_batch` is 0 if not one sequence
    fits; then `model_that_fits` is a preset that does, if any. `suggested` are micro-batches that fit, if those of the
    configuration do not: measurements then use them. `keeps_curve` says whether that changes a run by rounding alone.
    """

    parameters: int
    parameters_by_part: dict[str, int]
    seq_len: int
    vocab_size: int
    assumed: tuple[str, ...]
    tokens_per_step: int
    steps: int
    tokens: int
    tokens_per_parameter: float
    compute_optimal_tokens: int
    training_sequences: int | None
    validation_sequences: int | None
    epochs: dict[str, float]
    training_flops: float
    memory: dict[str, int]
    memory_bytes: int
    process_bytes: int
    available_bytes: int | None
    fits: bool | None
    micro_batch_size: int
    gradient_accumulation: int
    largest_micro_batch: int | None
    suggested: dict[str, int] | None
    keeps_curve: bool
    model_that_fits: str | None
    tokens_per_second: float | None
    step_seconds: float | None
    seconds: float | None
    seconds_by_part: dict[str, float] | None
    checkpoint_bytes: int
    checkpoints: int
    kwh: float | None
    price: float | None
    device: str
    precision: str
    ranks: int
    intervals: dict[str, int]


def plan(
    config: RunConfig,
    *,
    data: Path | None = None,
    seq_len: int | None = None,
    tokens: int | None = None,
    device_name: str = "auto",
    ranks: int = 1,
    is_measured: bool = True,
    budget: float | None = None,
    cost: Cost = NO_COST,
    started: float | None = None,
    on_event: Listener = ignore,
) -> Plan:
    """Return the plan of the run that `pretrain` would do with the same arguments and `ranks`; write nothing.

    Without packed `data` the text has `tokens` tokens in sequences of `seq_len`, or assumed numbers. With `budget`, in
    seconds of the complete command, steps are chosen for it. `started` (of `time.monotonic`) is when the command
    started, as that of a run would.
    """
    check(config, Place(size=ranks, local_size=ranks))
    config, text = packed_text(config, data) if data else assumed_text(config, seq_len=seq_len, tokens=tokens)
    device = devices.choose(device_name, precision="fp32").device
    config = oom_cache.capped(
        config, device, seq_len=text.seq_len, vocab_size=text.vocab_size, ranks=ranks, on_event=on_event
    )
    _set_threads(config.training, device, ranks)
    if is_measured:
        choice = precision.settled(config, device_name, seq_len=text.seq_len, on_event=on_event)
    else:
        choice = devices.choose(device_name, precision=config.training.precision)
    config = _shared(config, choice, ranks)
    memory = MemoryLimit(config, text.seq_len, choice, ranks)
    is_measured = is_measured and _can_be_tried(memory)
    before = memory.process_bytes  # read now: trial steps add to it
    training = config.training if memory.fits is not False else memory.suggested()
    is_tried = is_measured and training is not None
    trial = compiling.tried(config, choice, seq_len=text.seq_len, on_event=on_event) if is_tried else None
    tried = _tried(memory, training, text, trial, started=started, is_measured=is_measured)
    if budget is not None:
        config, text = _for_budget(config, text, tried.spent, data, seconds=budget, tokens=tokens)
    return _Sums(config, text, choice, ranks).plan(memory, tried, cost, process_bytes=before)


def _shared(config: RunConfig, choice: Choice, ranks: int) -> RunConfig:
    """Return `config` with the way in which `ranks` will share the model."""
    parallel = chosen(config, choice, Place(size=ranks, local_size=ranks))
    return config.model_copy(update={"training": config.training.model_copy(update={"parallel": parallel})})


def _can_be_tried(memory: MemoryLimit) -> bool:
    """Whether this process has room for a rank's steps: alone it holds the full model, also where fsdp would not."""
    return memory.ranks == 1 or memory.config.training.parallel != "fsdp" or replace(memory, ranks=1).fits is not False


@dataclass(frozen=True)
class _Tried:
    """A step split so that it fits, or None, and its costs, or None if they were not measured."""

    training: TrainingConfig | None
    spent: Costs | None
    is_full: bool = False  # memory was full, although counting said that the step fits


def _tried(
    memory: MemoryLimit,
    training: TrainingConfig | None,
    text: Text,
    trial: compiling.Trial | None,
    *,
    started: float | None,
    is_measured: bool,
) -> _Tried:
    """Measure a few steps of the run with `training`, which fits by counting; halve micro-batches while it does not."""
    is_full = False
    while is_measured and training is not None:
        config = memory.config.model_copy(update={"training": training})
        spent = _spent(config, text, memory.choice, trial, ranks=memory.ranks, started=started)
        if spent is not None:
            return _Tried(training, spent, is_full)
        training, is_full = halved(training, ranks=memory.ranks), True
    return _Tried(training, None, is_full)


def _set_threads(training: TrainingConfig, device: torch.device, ranks: int) -> None:
    """Set threads as in the run: the configured number, or a rank's share of the processors."""
    if device.type != "cpu":
        return
    devices.keep_freed_memory()
    if training.threads != "auto":
        devices.set_threads(training.threads)
    elif ranks > 1 and "OMP_NUM_THREADS" not in os.environ:
        devices.set_threads(usable_processors() // ranks or 1)


def _spent(
    config: RunConfig, text: Text, choice: Choice, trial: compiling.Trial | None, *, ranks: int, started: float | None
) -> Costs | None:
    """Return the run's costs in time, from a few steps and the gain of compiling; None if memory is full."""
    before = 0.0 if started is None else time.monotonic() - started
    rates = _rates(_of_one_rank(config, ranks), text, choice, apart=trial is not None)
    if rates is None:
        return None
    if trial is not None:
        rates = replace(rates, micro_batch=rates.micro_batch * trial.share)
    return costs(config, rates, validation_sequences=text.scored, start=before + START_SECONDS, ranks=ranks)


def _rates(config: RunConfig, text: Text, choice: Choice, *, apart: bool) -> probe.Rates | None:
    """Return the rates of a rehearsal, None if memory is full.

    Measuring micro-batch and update `apart` may need more memory than a run with one micro-batch.
    """
    try:
        return probe.measure_steps(config, choice, text.batches, seq_len=text.seq_len, apart=apart)
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
    probe.release_memory(choice.device)
    return _rates(config, text, choice, apart=False) if apart else None


def _of_one_rank(config: RunConfig, ranks: int) -> RunConfig:
    """Return `config` with the part of a step that one rank does, as a step of one process."""
    training = config.training
    own = {"gradient_accumulation": training.gradient_accumulation // ranks, "compile": training.compile is True}
    return config.model_copy(update={"training": training.model_copy(update=own)})


def _for_budget(
    config: RunConfig, text: Text, spent: Costs | None, data: Path | None, *, seconds: float, tokens: int | None
) -> tuple[RunConfig, Text]:
    """Return `config` with the steps that fit into `seconds`, and the text updated for them."""
    if spent is None:
        raise ConfigError(
            "a budget needs measured step times, and nothing was measured",
            hint="leave out `--no-measure`; if the model does not fit into memory, choose a smaller one: `--model 1m`",
        )
    config = fitted(config, spent, seconds=seconds)
    if data is not None:
        return packed_text(config, data)
    trained = assumed_text(config, seq_len=text.seq_len, tokens=tokens)[1]
    return config, replace(trained, assumed=text.assumed)


@dataclass(frozen=True)
class _Sums:
    """The numbers of a plan, from what was decided and measured."""

    config: RunConfig
    text: Text
    choice: Choice
    ranks: int

    def plan(self, memory: MemoryLimit, tried: _Tried, cost: Cost, *, process_bytes: int) -> Plan:
        """Return the plan."""
        training, counted, seq_len = self.config.training, count(self.config.model), self.text.seq_len
        per_step = training.sequences_per_step * seq_len
        tokens = per_step * training.max_steps
        needed, largest, spent = memory.needs(), memory.largest(), tried.spent
        is_known = largest is not None or spent is not None or tried.is_full
        fits = tried.training == memory.config.training if is_known else None
        if tried.is_full:
            largest = tried.training.micro_batch_size if tried.training else 0
        parts = None if spent is None else spent.of(self.config)
        seconds = None if parts is None else sum(parts.values())
        return Plan(
            parameters=counted.total,
            parameters_by_part=_parts(counted),
            seq_len=seq_len,
            vocab_size=self.config.model.known_vocab_size,
            assumed=self.text.assumed,
            tokens_per_step=per_step,
            steps=training.max_steps,
            tokens=tokens,
            tokens_per_parameter=round(tokens / counted.total, 3),
            compute_optimal_tokens=TOKENS_PER_PARAMETER * counted.total,
            training_sequences=self.text.training_sequences,
            validation_sequences=self.text.validation_sequences,
            epochs=self.text.epochs,
            training_flops=tokens * counted.training_flops_per_token(seq_len),
            memory=dict(needed.parts),
            memory_bytes=needed.total,
            process_bytes=process_bytes,
            available_bytes=memory.available,
            fits=fits,
            micro_batch_size=training.micro_batch_size,
            gradient_accumulation=training.gradient_accumulation,
            largest_micro_batch=largest,
            suggested=None if fits is not False or tried.training is None else _batch(tried.training),
            keeps_curve=keeps_curve(self.config),
            model_that_fits=memory.model_that_fits() if memory.largest() == 0 else None,
            tokens_per_second=None if spent is None else per_step / spent.step,
            step_seconds=None if spent is None else spent.step,
            seconds=seconds,
            seconds_by_part=parts,
            checkpoint_bytes=checkpoint_bytes(self.config),
            checkpoints=self._checkpoints(),
            kwh=_product(cost.watts, seconds, 1 / JOULES_PER_KWH),
            price=_product(cost.price_per_hour, seconds, 1 / SECONDS_PER_HOUR),
            device=str(self.choice.device),
            precision=self.choice.precision,
            ranks=self.ranks,
            intervals=self._intervals(),
        )

    def _checkpoints(self) -> int:
        """Return the largest number of checkpoints on the disk: one is written before the oldest is removed."""
        training = self.config.training
        saves = times(self.config)["saving"]
        permanent = training.max_steps // training.keep_every if training.keep_every else 0
        return min(saves, training.keep_last + training.keep_best + 1) + permanent

    def _intervals(self) -> dict[str, int]:
        """Return the intervals of validations and checkpoints, and the length of the warm-up, in steps."""
        found = {"validation": self.config.validation.interval, "checkpoint": self.config.training.checkpoint_interval}
        return {"warm-up": warmup_steps(self.config.scheduler, max_steps=self.config.training.max_steps), **found}


def _parts(counted: Count) -> dict[str, int]:
    named = ("embedding", "attention", "feedforward", "norms", "head", "extras")
    return {name: size for name in named if (size := getattr(counted, name))}


def _batch(training: TrainingConfig) -> dict[str, int]:
    return {name: getattr(training, name) for name in ("micro_batch_size", "gradient_accumulation")}


def _product(each: float | None, seconds: float | None, unit: float) -> float | None:
    return None if each is None or seconds is None else each * seconds * unit
