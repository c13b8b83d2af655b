"""The training loop: step, log, validate, save, in that order, until done or asked to stop."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from alm import kinds
from alm.data.loader import BatchPlan, Loader, MicroBatch, batch_plan, target_count
from alm.device import Choice
from alm.events import Listener, Stepped, Validated
from alm.packing.shards import TokenStream
from alm.training.config import RunConfig
from alm.training.garbage import collector_paused
from alm.training.monitoring.metrics import MetricsFile, Row, read
from alm.training.monitoring.samples import Sampler
from alm.training.monitoring.throughput import Clock, Throughput
from alm.training.monitoring.verdict import Judge, fields
from alm.training.nonfinite import NonFiniteSteps
from alm.training.sizing.eta import TimeLeft
from alm.training.state import TrainState
from alm.training.step import StepResult, train_step
from alm.training.validate import Score, rows_for, validate


@dataclass(frozen=True)
class Streams:
    """The training and held-out token streams, with the UTF-8 bytes of each token id."""

    train: TokenStream
    validation: TokenStream
    bytes_per_id: NDArray[np.int32]


@dataclass(frozen=True)
class Hooks:
    """Callbacks of the loop: stopping, events, saving, samples and verdicts.

    All ranks call `should_stop` together before every micro-batch of training and validation and after every step, and
    get the same answer; `stop_wanted` is for this rank alone. `save` gets the bits per byte of this step, if it was
    scored, and returns while the checkpoint is still being written; `settle` reports one that is finished. All ranks
    call `is_changed` after every step: it returns whether the configuration changes from here on. `gauge` measures
    speed, and `pace` collects how long steps and pauses take.
    """

    stop_wanted: Callable[[], bool]
    should_stop: Callable[[], bool]
    on_event: Listener
    save: Callable[[float | None], object]
    settle: Callable[[], object]
    gauge: Throughput
    sampler: Sampler | None = None
    judge: Judge | None = None
    is_changed: Callable[[int], bool] = lambda step: False
    pace: TimeLeft = field(default_factory=TimeLeft)


def train(
    state: TrainState, config: RunConfig, streams: Streams, *, choice: Choice, metrics: MetricsFile, hooks: Hooks
) -> bool:
    """Train `state` up to `training.max_steps`; return whether it got there and the last step was scored.

    Returns early, after a complete step, when `hooks.should_stop` or `hooks.is_changed` says so. A step whose loss or
    gradient is not finite is skipped; raises `AlmError` after `training.max_skipped_in_row` of them, or when a weight
    is not finite.
    """
    training = config.training
    plan = planned(config, streams.train)
    recorder = _Recorder(state, config, streams, plan, choice=choice, metrics=metrics, hooks=hooks)
    recorder.catch_up()
    world = state.parallelism.world
    with (
        collector_paused(),
        Loader(
            streams.train,
            plan,
            first_step=state.step,
            last_step=training.max_steps,
            prefetch=config.data.prefetch,
            pin=choice.device.type == "cuda",
            rank=world.rank,
            world_size=world.size,
            should_stop=hooks.stop_wanted,
        ) as loader,
    ):
        for step, micro_batches in recorder.waiting(loader):
            factor = lr_factor(config, step)
            # No collective: a batch is a pure function of the step, so every rank computes the same number.
            targets = target_count(streams.train, plan, step)
            result = _step(state, micro_batches, targets, config, choice, factor, hooks)
            if result is None:
                break
            recorder.after_step(result, state.optimizer.param_groups[0]["lr"])
            if hooks.should_stop() or hooks.is_changed(state.step):
                break
        else:
            if state.step < training.max_steps:
                # The loader gave up because of a stop. The other ranks ask before their next micro-batch, and asking is
                # a collective: without this call they would wait forever.
                hooks.should_stop()
    recorder.skips.look()
    return state.step >= training.max_steps and not recorder.was_cut


def planned(config: RunConfig, stream: TokenStream) -> BatchPlan:
    """Return the plan that decides every batch of a run with `config` on `stream`."""
    training = config.training
    return batch_plan(
        stream,
        config.data,
        sequences_per_step=training.sequences_per_step,
        micro_batch_size=training.micro_batch_size,
        seed=training.seed,
    )


def lr_factor(config: RunConfig, step: int) -> float:
    """Return the factor on the peak learning rates in update number `step` (counted from 0)."""
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
        z_weight=config.training.z_loss,
    )


class _Recorder:
    """The work after a step: metrics, samples, validation and checkpoints, each when it is due."""

    def __init__(
        self,
        state: TrainState,
        config: RunConfig,
        streams: Streams,
        plan: BatchPlan,
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
        self.skips = NonFiniteSteps(
            state,
            plan,
            most_in_row=config.training.max_skipped_in_row,
            metrics=metrics,
            on_event=hooks.on_event,
        )
        self._best: float | None = None
        self.was_cut = False
        self._tokens_per_step = config.training.sequences_per_step * streams.train.seq_len
        self._gauge = hooks.gauge
        self._validation_rows = rows_for(streams.validation, streams.bytes_per_id, wanted_bytes=config.validation.bytes)
        self._pace = hooks.pace
        self._clock = Clock(state.step)

    def waiting(self, loader: Loader) -> Iterator[tuple[int, list[MicroBatch]]]:
        """Yield the batches of `loader`, timing each wait."""
        return self._clock.waiting(loader)

    def after_step(self, result: StepResult, lr: float) -> None:
        """Do the work that is due after the step that `state` has just finished."""
        training = self._config.training
        step, last = self._state.step, self._state.step >= training.max_steps
        self.skips.note(step, result)
        if last or step % self._config.logging.log_interval == 0:
            self._log(result, lr)
        else:
            self._hooks.on_event(Stepped(step, training.max_steps, lr, 0.0))
        # After the row of this step: if a save in the background failed, this raises, and the error path saves this
        # step, whose row must then be in the file.
        self._hooks.settle()
        self._sample()
        self._validate_and_save(last=last)

    def catch_up(self) -> None:
        """Make up for samples and validation of the resumed step that a stop cut short or a full disk lost."""
        if self._hooks.sampler is not None:
            with self._clock.paused():
                self._hooks.sampler.catch_up(self._state.step)
        if self._hooks.judge is not None:
            self._hooks.judge.catch_up(read(self._metrics.run))
        rows = self._state.parallelism.world.from_main(self._scores)
        self._best = min((row["bits_per_byte"] for row in rows), default=None)
        step = self._state.step
        if step and all(row["step"] != step for row in rows):
            self._validate_and_save(last=step >= self._config.training.max_steps, resumed=True)

    def _scores(self) -> list[Row]:
        return [row for row in read(self._metrics.run) if "bits_per_byte" in row]

    def _validate_and_save(self, *, last: bool, resumed: bool = False) -> None:
        training, step = self._config.training, self._state.step
        score: Score | None = None
        if len(self._validation_rows) and (last or step % self._config.validation.interval == 0):
            score = self._validate()
            if score is None:  # asked to stop: the step is saved as interrupted and scored on resume
                self.was_cut = True
                return
        if score is not None and not math.isfinite(score.bits_per_byte):
            score = None  # reported already, and useless for choosing the best checkpoint
        is_best = score is not None and (self._best is None or score.bits_per_byte < self._best)
        if score is not None and is_best:
            self._best = score.bits_per_byte
        # A resumed step has its checkpoint already, unless its score, known only now, makes it the best one.
        due = last or any(every and step % every == 0 for every in (training.checkpoint_interval, training.keep_every))
        if (due and not resumed) or (training.keep_best and is_best):
            self._save(score)

    def _log(self, result: StepResult, lr: float) -> None:
        self.skips.look()  # reading the loss below waits for the device anyway
        step, loss = self._state.step, float(result.loss)
        values = {"loss": loss, "gradient_norm": float(result.gradient_norm)}
        scaler = self._state.scaler
        lap = self._clock.lap(step)
        reading = self._gauge.read(lap)
        self._pace.stepped(lap)
        row: Row = {
            "step": step,
            # JSON has no NaN or infinity.
            **{name: value for name, value in values.items() if math.isfinite(value)},
            **{name: float(value) for name, value in self._state.model.routing().items()},
            "lr": lr,
            "tokens": step * self._tokens_per_step,
            **reading.row(),
            "skipped_steps": self._state.skipped_steps,
            **({} if scaler is None else {"loss_scale": float(scaler.scale)}),
        }
        self._metrics.write(row)
        if self._hooks.judge is not None:
            self._hooks.judge.add(row)
        self._hooks.on_event(
            Stepped(
                step,
                self._config.training.max_steps,
                lr,
                reading.tokens_per_second,
                loss=loss if math.isfinite(loss) else None,
                seconds_left=self._pace.eta(self._config, step),
                mfu=reading.mfu,
                memory_bytes=reading.memory_bytes,
                data_wait_share=reading.data_wait_share,
            )
        )

    def _sample(self) -> None:
        sampler, step = self._hooks.sampler, self._state.step
        if sampler is not None and sampler.is_due(step):
            with self._clock.paused(self._pace.paused("samples")):
                sampler.sample(step)

    def _validate(self) -> Score | None:
        with self._clock.paused(self._pace.paused("validation")):
            score = validate(
                self._state.parallelism,
                self._streams.validation,
                self._streams.bytes_per_id,
                rows=self._validation_rows,
                micro_batch_size=self._config.training.micro_batch_size,
                choice=self._choice,
                should_stop=self._hooks.should_stop,
            )
            gc.collect()  # the collector is off during steps, and this pause counts as validation anyway
        if score is not None:
            step = self._state.step
            known = {} if score.margin is None else {"bits_per_byte_margin": score.margin}
            row = {"step": step, "validation_loss": score.loss, "bits_per_byte": score.bits_per_byte, **known}
            judged = None
            if math.isfinite(score.bits_per_byte):  # JSON has no NaN or infinity
                judged = None if self._hooks.judge is None else self._hooks.judge.judge(row)
                self._metrics.write(row if judged is None else row | fields(judged))
            self._hooks.on_event(Validated(step, score.loss, score.bits_per_byte, score.margin))
            if judged is not None:
                self._hooks.on_event(judged)
        return score

    def _save(self, score: Score | None) -> None:
        self.skips.look()
        with self._clock.paused(self._pace.paused("saving")):
            self._metrics.sync()  # rows first: resuming from a checkpoint never lacks the rows before it
            self._hooks.save(None if score is None else score.bits_per_byte)
            gc.collect()
