"""The training loop: step, log, validate, save, in that order, until done or asked to stop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from alm import kinds
from alm.data.loader import BatchPlan, Loader, MicroBatch, batch_plan, target_count
from alm.device import Choice
from alm.errors import AlmError
from alm.events import Listener, Stepped, Validated
from alm.packing.shards import TokenStream
from alm.training.config import RunConfig
from alm.training.metrics import MetricsFile
from alm.training.parallel import whole
from alm.training.state import TrainState
from alm.training.step import StepResult, train_step
from alm.training.validate import rows_for, validate


@dataclass(frozen=True)
class Streams:
    """What is trained on and what is held out, with the UTF-8 bytes of each token id."""

    train: TokenStream
    validation: TokenStream
    bytes_per_id: NDArray[np.int32]


@dataclass(frozen=True)
class Hooks:
    """What the loop asks and tells: whether to stop, what happened, and when to save.

    `stop_wanted` is of this rank, `should_stop` what all ranks have agreed on: all have to ask it together.
    """

    stop_wanted: Callable[[], bool]
    should_stop: Callable[[], bool]
    on_event: Listener
    save: Callable[[], object]


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
    world = state.sharing.world
    with Loader(
        streams.train,
        plan,
        first_step=state.step,
        last_step=training.max_steps,
        prefetch=config.data.prefetch,
        pin=choice.device.type == "cuda",
        rank=world.rank,
        world_size=world.size,
        should_stop=hooks.stop_wanted,
    ) as loader:
        for step, micro_batches in loader:
            factor = lr_factor(config, step)
            targets = target_count(streams.train, plan, step)
            result = _step(state, micro_batches, targets, config, choice, factor, hooks)
            if result is None:
                break
            recorder.after_step(result, state.optimizer.param_groups[0]["lr"])
            if hooks.should_stop():
                break
        else:
            if state.step < training.max_steps:
                hooks.should_stop()  # waiting for data was given up: the others ask before their first micro-batch


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


def _step(
    state: TrainState,
    micro_batches: list[MicroBatch],
    targets: int,
    config: RunConfig,
    choice: Choice,
    factor: float,
    hooks: Hooks,
) -> StepResult | None:
    return train_step(
        state,
        micro_batches,
        targets=targets,
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
        self._clock = _Clock(state.step)
        self._validation_rows = rows_for(streams.validation, streams.bytes_per_id, wanted_bytes=config.validation.bytes)

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
        if last or step % self._config.training.checkpoint_interval == 0:
            self._save()

    def _log(self, result: StepResult, lr: float) -> None:
        self._check_health()
        step, loss = self._state.step, float(result.loss)
        seconds, steps = self._clock.lap(step)
        rate = self._tokens_per_step * steps / seconds
        self._metrics.write(
            {
                "step": step,
                "loss": loss,
                **{name: float(value) for name, value in self._state.model.routing().items()},
                "lr": lr,
                "gradient_norm": float(result.gradient_norm),
                "tokens": step * self._tokens_per_step,
                "tokens_per_second": round(rate, 1),
                "step_seconds": round(seconds / steps, 6),
            }
        )
        max_steps = self._config.training.max_steps
        self._hooks.on_event(Stepped(step, max_steps, lr, rate, loss=loss))

    def _check_health(self) -> None:
        if not bool(self._healthy):
            raise AlmError(
                f"the loss is no longer finite at step {self._state.step}; checkpoints, if any, are from before that",
                hint="lower the learning rate: start another run with `--set optim.lr=...`",
            )

    def _validate(self) -> None:
        with self._clock.paused():
            score = validate(
                self._state.sharing,
                self._streams.validation,
                self._streams.bytes_per_id,
                rows=self._validation_rows,
                micro_batch_size=self._config.training.micro_batch_size,
                choice=self._choice,
            )
        step = self._state.step
        self._metrics.write({"step": step, "validation_loss": score.loss, "bits_per_byte": score.bits_per_byte})
        self._hooks.on_event(Validated(step, score.loss, score.bits_per_byte))

    def _save(self) -> None:
        # The update after a finite loss may have overflowed: what is saved must be whole in this sense too.
        for parameter in self._state.model.parameters():
            self._healthy &= torch.isfinite(whole(parameter)).all()
        self._check_health()
        with self._clock.paused():
            self._metrics.sync()
            self._hooks.save()


class _Clock:
    """Seconds of training between two log lines, validation and saving left out."""

    def __init__(self, step: int) -> None:
        self._started = time.perf_counter()
        self._step = step

    def lap(self, step: int) -> tuple[float, int]:
        """Seconds and steps since the last lap."""
        now = time.perf_counter()
        seconds, steps = now - self._started, step - self._step
        self._started, self._step = now, step
        return max(seconds, 1e-9), max(steps, 1)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time that passes in this context does not count."""
        since = time.perf_counter()
        yield
        self._started += time.perf_counter() - since
