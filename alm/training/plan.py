"""Plans a pretraining run: size, memory, time and cost, before anything is spent."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import get_args

import torch

from alm import device as devices
from alm.available import usable_processors
from alm.checkpoint.choose import checkpoint_at
from alm.device import Choice
from alm.distributed import Place
from alm.errors import ConfigError
from alm.events import Listener, ignore
from alm.model.count import count
from alm.model.weights import shapes_of
from alm.optim.schedules import warmup_steps
from alm.packing.shards import open_packed
from alm.quant.calibrate import stored_bytes
from alm.quant.codes import TypeName
from alm.training.config import RunConfig, TrainingConfig
from alm.training.plan_data import Text, assumed_text, packed_text
from alm.training.run import initial
from alm.training.run.ranks import check, choose_parallel
from alm.training.sizing import autotune, oom_cache, probe
from alm.training.sizing.budget import fit_steps
from alm.training.sizing.eta import START_SECONDS, TimeCosts, pauses_left, time_costs
from alm.training.sizing.memory import MemoryLimit, checkpoint_bytes, halve_micro_batch, keeps_loss_curve
from alm.training.sizing.suggest import TOKENS_PER_PARAMETER

JOULES_PER_KWH, SECONDS_PER_HOUR = 3.6e6, 3600


@dataclass(frozen=True)
class Cost:
    """Cost of running: watts drawn, and the price of an hour in any currency; None if not given."""

    watts: float | None = None
    price_per_hour: float | None = None


NO_COST = Cost()


@dataclass(frozen=True)
class PlannedModel:
    """The number of parameters, and of those of each part of the model; bytes of the weights, rounded to each type."""

    parameters: int
    parameters_by_part: dict[str, int]
    quantized_bytes: dict[str, int]


@dataclass(frozen=True)
class PlannedText:
    """The text, and how much of it the run reads; numbers are None if the amount of text is unknown.

    `conversations` and their `answer_tokens`, which are learned, are None for other text.
    """

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
    conversations: int | None = None
    answer_tokens: int | None = None


@dataclass(frozen=True)
class PlannedMemory:
    """Memory of one rank, and the micro-batches that fit into it.

    `memory` has the bytes at the peak by part, `memory_bytes` their sum: of the GPU, or the growth of the process.
    `process_bytes` is the size of a process on a CPU before it trains. `largest_micro_batch` is 0 if not one sequence
    fits; then `model_that_fits` is a preset that does, if any. `suggested` are micro-batches that fit, if those of the
    configuration do not: measurements then use them. `keeps_curve` says whether that changes a run by rounding alone.
    """

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


@dataclass(frozen=True)
class PlannedTime:
    """Speed and duration; None if nothing was measured."""

    tokens_per_second: float | None = None
    step_seconds: float | None = None
    seconds: float | None = None
    seconds_by_part: dict[str, float] | None = None


@dataclass(frozen=True)
class PlannedDisk:
    """Bytes of a checkpoint, and the largest number of them on the disk at a time."""

    checkpoint_bytes: int
    checkpoints: int


@dataclass(frozen=True)
class PlannedCost:
    """Energy and price of the run; None if not measured, or not asked for."""

    kwh: float | None
    price: float | None


@dataclass(frozen=True)
class Plan:
    """Numbers of a run. `intervals` are those of validations and checkpoints, and the warm-up, in steps.

    `initial_weights` is the checkpoint it starts from; None for random weights.
    """

    model: PlannedModel
    text: PlannedText
    memory: PlannedMemory
    time: PlannedTime
    disk: PlannedDisk
    cost: PlannedCost
    device: str
    precision: str
    ranks: int
    intervals: dict[str, int]
    initial_weights: str | None = None

    def values(self) -> dict[str, object]:
        """Return all numbers by name, without their parts: the object that `alm plan --json` prints."""
        found: dict[str, object] = {}
        for name, value in vars(self).items():
            found |= vars(value) if is_dataclass(value) else {name: value}
        return found


def plan(
    config: RunConfig,
    *,
    data: Path | None = None,
    init: Path | None = None,
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

    `config` has the model of `init`, from which the run starts; raises what the run would if the data does not fit it.
    Without packed `data` the text has `tokens` tokens in sequences of `seq_len`, or assumed numbers. With `budget`, in
    seconds of the complete command, steps are chosen for it. `started` (of `time.monotonic`) is when the command
    started, as that of a run would.
    """
    check(config, Place(size=ranks, local_size=ranks))
    init = None if init is None else checkpoint_at(init)
    if init is not None and data is not None:
        initial.check(init, open_packed(data), config.model)
    config, text = packed_text(config, data) if data else assumed_text(config, seq_len=seq_len, tokens=tokens)
    device = devices.choose(device_name, precision="fp32").device
    config = oom_cache.limit_micro_batch(
        config, device, seq_len=text.seq_len, vocab_size=text.vocab_size, ranks=ranks, on_event=on_event
    )
    _set_threads(config.training, device, ranks)
    if is_measured:
        choice = autotune.choose_precision(config, device_name, seq_len=text.seq_len, on_event=on_event)
    else:
        choice = devices.choose(device_name, precision=config.training.precision)
    config = _shared(config, choice, ranks)
    memory = MemoryLimit(config, text.seq_len, choice, ranks)
    is_measured = is_measured and _can_be_tried(memory)
    before = memory.process_bytes  # read now: trial steps add to it
    training = config.training if memory.fits is not False else memory.suggested()
    is_tried = is_measured and training is not None
    trial = autotune.try_compile(config, choice, seq_len=text.seq_len, on_event=on_event) if is_tried else None
    tried = _try(memory, training, text, trial, started=started, is_measured=is_measured)
    if budget is not None:
        config, text = _for_budget(config, text, tried.costs, data, seconds=budget, tokens=tokens)
    planned_time = _time(config, text, tried.costs)
    return Plan(
        _model(config),
        _text(config, text),
        _memory(config, memory, tried, process_bytes=before),
        planned_time,
        _disk(config, text),
        PlannedCost(
            kwh=_product(cost.watts, planned_time.seconds, 1 / JOULES_PER_KWH),
            price=_product(cost.price_per_hour, planned_time.seconds, 1 / SECONDS_PER_HOUR),
        ),
        device=str(choice.device),
        precision=choice.precision,
        ranks=ranks,
        intervals=_intervals(config),
        initial_weights=None if init is None else str(init),
    )


def _shared(config: RunConfig, choice: Choice, ranks: int) -> RunConfig:
    """Return `config` with the way in which `ranks` will share the model."""
    parallel = choose_parallel(config, choice, Place(size=ranks, local_size=ranks))
    return config.model_copy(update={"training": config.training.model_copy(update={"parallel": parallel})})


def _can_be_tried(memory: MemoryLimit) -> bool:
    """Whether this process has room for a rank's steps: alone it holds the full model, also where fsdp would not."""
    return memory.ranks == 1 or memory.config.training.parallel != "fsdp" or replace(memory, ranks=1).fits is not False


@dataclass(frozen=True)
class _Tried:
    """A step split so that it fits, or None, and the costs of a run with it, or None if they were not measured."""

    training: TrainingConfig | None
    costs: TimeCosts | None
    is_full: bool = False  # memory was full, although counting said that the step fits


def _try(
    memory: MemoryLimit,
    training: TrainingConfig | None,
    text: Text,
    trial: autotune.CompileTrial | None,
    *,
    started: float | None,
    is_measured: bool,
) -> _Tried:
    """Measure a few steps of the run with `training`, which fits by counting; halve micro-batches while it does not."""
    is_full = False
    while is_measured and training is not None:
        config = memory.config.model_copy(update={"training": training})
        costs = _costs(config, text, memory.choice, trial, ranks=memory.ranks, started=started)
        if costs is not None:
            return _Tried(training, costs, is_full)
        training, is_full = halve_micro_batch(training, ranks=memory.ranks), True
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


def _costs(
    config: RunConfig,
    text: Text,
    choice: Choice,
    trial: autotune.CompileTrial | None,
    *,
    ranks: int,
    started: float | None,
) -> TimeCosts | None:
    """Return the run's costs in time, from a few steps and the gain of compiling; None if memory is full."""
    before = 0.0 if started is None else time.monotonic() - started
    timings = _timings(_of_one_rank(config, ranks), text, choice, apart=trial is not None)
    if timings is None:
        return None
    if trial is not None:
        timings = replace(timings, micro_batch=timings.micro_batch * trial.share)
    return time_costs(config, timings, validation_sequences=text.scored, start=before + START_SECONDS, ranks=ranks)


def _timings(config: RunConfig, text: Text, choice: Choice, *, apart: bool) -> probe.StepTimings | None:
    """Measure a few steps; return None if memory is full.

    Measuring micro-batch and update `apart` may need more memory than a run with one micro-batch.
    """
    try:
        return probe.measure_steps(config, choice, text.batches, seq_len=text.seq_len, apart=apart)
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
    probe.release_memory(choice.device)
    return _timings(config, text, choice, apart=False) if apart else None


def _of_one_rank(config: RunConfig, ranks: int) -> RunConfig:
    """Return `config` with the part of a step that one rank does, as a step of one process."""
    training = config.training
    own = {"gradient_accumulation": training.gradient_accumulation // ranks, "compile": training.compile is True}
    return config.model_copy(update={"training": training.model_copy(update=own)})


def _for_budget(
    config: RunConfig, text: Text, costs: TimeCosts | None, data: Path | None, *, seconds: float, tokens: int | None
) -> tuple[RunConfig, Text]:
    """Return `config` with the steps that fit into `seconds`, and the text updated for them."""
    if costs is None:
        raise ConfigError(
            "a budget needs measured step times, and nothing was measured",
            hint="leave out `--no-measure`; if the model does not fit into memory, choose a smaller one: `--model 1m`",
        )
    config = fit_steps(config, costs, seconds=seconds)
    if data is not None:
        return packed_text(config, data)
    trained = assumed_text(config, seq_len=text.seq_len, tokens=tokens)[1]
    return config, replace(trained, assumed=text.assumed)


def _model(config: RunConfig) -> PlannedModel:
    counted = count(config.model)
    named = ("embedding", "attention", "feedforward", "norms", "head", "extras")
    parts = {name: size for name in named if (size := getattr(counted, name))}
    shapes = shapes_of(config.model)
    return PlannedModel(counted.total, parts, {to: stored_bytes(shapes, to) for to in get_args(TypeName)})


def _text(config: RunConfig, text: Text) -> PlannedText:
    counted = count(config.model)
    per_step = config.training.sequences_per_step * text.seq_len
    tokens = per_step * config.training.max_steps
    return PlannedText(
        seq_len=text.seq_len,
        vocab_size=config.model.known_vocab_size,
        assumed=text.assumed,
        tokens_per_step=per_step,
        steps=config.training.max_steps,
        tokens=tokens,
        tokens_per_parameter=round(tokens / counted.total, 3),
        compute_optimal_tokens=TOKENS_PER_PARAMETER * counted.total,
        training_sequences=text.training_sequences,
        validation_sequences=text.validation_sequences,
        epochs=text.epochs,
        training_flops=tokens * counted.training_flops_per_token(text.seq_len),
        conversations=text.conversations,
        answer_tokens=text.answer_tokens,
    )


def _memory(config: RunConfig, limit: MemoryLimit, tried: _Tried, *, process_bytes: int) -> PlannedMemory:
    peak, largest = limit.peak(), limit.largest()
    is_known = largest is not None or tried.costs is not None or tried.is_full
    fits = tried.training == limit.config.training if is_known else None
    names = ("micro_batch_size", "gradient_accumulation")
    suggested = None if fits is not False or tried.training is None else tried.training
    if tried.is_full:  # although counting said that it fits
        largest_tried = tried.training.micro_batch_size if tried.training else 0
    return PlannedMemory(
        memory=dict(peak.parts),
        memory_bytes=peak.total,
        process_bytes=process_bytes,
        available_bytes=limit.available,
        fits=fits,
        micro_batch_size=config.training.micro_batch_size,
        gradient_accumulation=config.training.gradient_accumulation,
        largest_micro_batch=largest_tried if tried.is_full else largest,
        suggested=None if suggested is None else {name: getattr(suggested, name) for name in names},
        keeps_curve=keeps_loss_curve(config),
        model_that_fits=limit.model_that_fits() if largest == 0 else None,
    )


def _time(config: RunConfig, text: Text, costs: TimeCosts | None) -> PlannedTime:
    if costs is None:
        return PlannedTime()
    parts, per_step = costs.by_part(config), config.training.sequences_per_step * text.seq_len
    return PlannedTime(per_step / costs.step, costs.step, sum(parts.values()), parts)


def _disk(config: RunConfig, text: Text) -> PlannedDisk:
    training = config.training
    best = training.keeps_best(repeats=any(seen > 1 for seen in text.epochs.values()))
    saves = pauses_left(config)["saving"] + best
    permanent = training.max_steps // training.keep_every if training.keep_every else 0
    # One is written before the oldest is removed.
    kept = min(saves, training.keep_last + best + 1)
    return PlannedDisk(checkpoint_bytes(config), kept + permanent)


def _intervals(config: RunConfig) -> dict[str, int]:
    return {
        "warm-up": warmup_steps(config.scheduler, max_steps=config.training.max_steps),
        "validation": config.validation.interval,
        "checkpoint": config.training.checkpoint_interval,
    }


def _product(each: float | None, seconds: float | None, unit: float) -> float | None:
    return None if each is None or seconds is None else each * seconds * unit
