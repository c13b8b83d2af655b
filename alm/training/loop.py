"""The training loop: step, log, validate, save, in that order, until done or asked to stop."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from alm import kinds
from alm.data.loader import BatchPlan, Loader, MicroBatch, batch_plan
from alm.device import Choice
from alm.errors import AlmError
from alm.events import Listener, Stepped, Validated
from alm.packing.shards import TokenStream
from alm.training.config import RunConfig
from alm.training.garbage import collector_paused
from alm.training.metrics import MetricsFile
from alm.training.samples import Sampler
from alm.training.state import TrainState
from alm.training.step import Forward, StepResult, train_step
from alm.training.throughput import Clock, Gauge, TimeLeft, times_left
from alm.training.validate import rows_for, validate


@dataclass(frozen=True)
class Streams:
    """What is trained on and what is held out, with the UTF-8 bytes of each token id."""

    train: TokenStream
    validation: TokenStream
    bytes_per_id: NDArray[np.int32]


@dataclass(frozen=True)
class Hooks:
    """What the loop asks and tells: whether to stop, what happened, when to save, and who writes samples if anyone."""

    should_stop: Callable[[], bool]
    on_event: Listener
    save: Callable[[], object]
    sampler: Sampler | None = None


def train(
    state: TrainState, config: RunConfig, streams: Streams, *, choice: Choice, metrics: MetricsFile, hooks: Hooks
) -> None:
    """Train `state` up to `training.max_steps`.

    Returns early, at a whole step, when `hooks.should_stop` says so. Raises `AlmError` when the loss
    is no longer finite; nothing is saved from then on.
    """
    training = config.training
    plan = planned(config, streams.train)
    recorder = _Recorder(state, config, streams, choice=choice, metrics=metrics, hooks=hooks)
    forward = compiled(state, enabled=training.compile is True)
    with (
        collector_paused(),
        Loader(
            streams.train,
            plan,
            first_step=state.step,
            last_step=training.max_steps,
            prefetch=config.data.prefetch,
            pin=choice.device.type == "cuda",
            should_stop=hooks.should_stop,
        ) as loader,
    ):
        for step, micro_batches in recorder.waiting(loader):
            factor = lr_factor(config, step)
            result = _step(state, forward, micro_batches, config, choice, factor, hooks)
            if result is None:
                break
            recorder.after_step(result, state.optimizer.param_groups[0]["lr"])
            if hooks.should_stop():
                break


def planned(config: RunConfig, stream: TokenStream) -> BatchPlan:
    """What decides every batch of a run with `config` on `stream`."""
    training = config.training
    return batch_plan(
        stream,
        config.data,
        sequences_per_step=training.sequences_per_step,
        micro_batch_size=training.micro_batch_size,
        seed=training.seed,
    )


def lr_factor(config: RunConfig, step: int) -> float:
    """What the schedule makes of the peak rates in update number `step` (counted from 0)."""
    schedule = kinds.module_of(config.scheduler)
    factor: float = schedule.factor(config.scheduler, step, max_steps=config.training.max_steps)
    return factor


def compiled(state: TrainState, *, enabled: bool) -> Forward:
    """The model's forward, through torch.compile when asked for."""
    return torch.compile(state.model) if enabled else state.model


def _step(
    state: TrainState,
    forward: Forward,
    micro_batches: list[MicroBatch],
    config: RunConfig,
    choice: Choice,
    factor: float,
    hooks: Hooks,
) -> StepResult | None:
    return train_step(
        state,
        forward,
        micro_batches,
        choice=choice,
        lr_factor=factor,
        clip_norm=config.training.gradient_clip_norm,
        seed=config.training.seed,
        should_stop=hooks.should_stop,
    )


class _Recorder:
    """What happens after a step: metrics, validation, checkpoints, each when it is due."""

    def __init__(
        self,
        state: TrainState,
        config: RunConfig,
        streams: Streams,
        *,
        choice: Choice,
        metrics: MetricsFile,
        hooks: Hooks,
    ) -> None:
        self._state = state
        self._config = config
        self._streams = streams
        self._choice = choice
        self._metrics = metrics
        self._hooks = hooks
        self._healthy = torch.ones((), dtype=torch.bool, device=choice.device)
        self._tokens_per_step = config.training.sequences_per_step * streams.train.seq_len
        self._gauge = Gauge(config, choice, seq_len=streams.train.seq_len)
        self._validation_rows = rows_for(streams.validation, streams.bytes_per_id, wanted_bytes=config.validation.bytes)
        self._time_left = self._known_pauses()
        self._clock = Clock(state.step)

    def waiting(self, loader: Loader) -> Iterator[tuple[int, list[MicroBatch]]]:
        """The batches of `loader`, with a look at the clock."""
        return self._clock.waiting(loader)

    def _known_pauses(self) -> TimeLeft:
        training, sampler = self._config.training, self._hooks.sampler
        left = {"saving": times_left(training.checkpoint_interval, training.max_steps)}
        if len(self._validation_rows):
            left["validation"] = times_left(self._config.validation.interval, training.max_steps)
        if sampler is not None:
            left["samples"] = sampler.left
        return TimeLeft(training.max_steps, left)

    def after_step(self, result: StepResult, lr: float) -> None:
        step, last = self._state.step, self._state.step == self._config.training.max_steps
        # Kept on the device: asking every step would make every step wait.
        self._healthy &= torch.isfinite(result.loss) & torch.isfinite(result.gradient_norm)
        logged = last or step % self._config.logging.log_interval == 0
        if logged:
            self._log(result, lr)
        else:
            self._hooks.on_event(Stepped(step, self._config.training.max_steps, lr, 0.0))
        if len(self._validation_rows) and (last or step % self._config.validation.interval == 0):
            self._validate()
        if self._hooks.sampler is not None and self._hooks.sampler.is_due(step):
            with self._clock.paused(self._time_left.paused("samples")):
                self._hooks.sampler.sample(step)
        if last or step % self._config.training.checkpoint_interval == 0:
            self._save()

    def _log(self, result: StepResult, lr: float) -> None:
        self._check_health()
        step, loss = self._state.step, float(result.loss)
        lap = self._clock.lap(step)
        reading = self._gauge.read(lap)
        self._time_left.stepped(reading.step_seconds)
        self._metrics.write(
            {
                "step": step,
                "loss": loss,
                **{name: float(value) for name, value in self._state.model.routing().items()},
                "lr": lr,
                "gradient_norm": float(result.gradient_norm),
                "tokens": step * self._tokens_per_step,
                **reading.row(),
            }
        )
        self._hooks.on_event(
            Stepped(
                step,
                self._config.training.max_steps,
                lr,
                reading.tokens_per_second,
                loss=loss,
                seconds_left=self._time_left.after(step),
                mfu=reading.mfu,
                memory_bytes=reading.memory_bytes,
                data_wait_share=reading.data_wait_share,
            )
        )

    def _check_health(self) -> None:
        if not bool(self._healthy):
            raise AlmError(
                f"the loss is no longer finite at step {self._state.step}; checkpoints, if any, are from before that",
                hint="lower the learning rate: start another run with `--set optim.lr=...`",
            )

    def _validate(self) -> None:
        with self._clock.paused(self._time_left.paused("validation")):
            score = validate(
                self._state.model,
                self._streams.validation,
                self._streams.bytes_per_id,
                rows=self._validation_rows,
                micro_batch_size=self._config.training.micro_batch_size,
                choice=self._choice,
            )
            gc.collect()
        step = self._state.step
        known = {} if score.margin is None else {"bits_per_byte_margin": score.margin}
        row = {"step": step, "validation_loss": score.loss, "bits_per_byte": score.bits_per_byte, **known}
        self._metrics.write(row)
        self._hooks.on_event(Validated(step, score.loss, score.bits_per_byte, score.margin))

    def _save(self) -> None:
        # The update after a finite loss may have overflowed: what is saved must be whole in this sense too.
        for parameter in self._state.model.parameters():
            self._healthy &= torch.isfinite(parameter).all()
        self._check_health()
        with self._clock.paused(self._time_left.paused("saving")):
            self._metrics.sync()
            self._hooks.save()
            gc.collect()  # the loop keeps it out of its steps
