"""The training loop: step, log, validate, save, in that order, until done or asked to stop."""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Iterator
from functools import partial

from alm import kinds
from alm.checkpoint.background import CheckpointWriter
from alm.corpus.split import TRAIN, VALIDATION
from alm.data.loader import Loader, MicroBatch, target_count
from alm.events import Stepped, TrainingBegan, Validated
from alm.tokenizers.chat_format import ChatFormat
from alm.tokenizers.file import Tokenizer
from alm.training.batches import plan_batches
from alm.training.config import RunConfig
from alm.training.monitoring import reference
from alm.training.monitoring.answers import Turns
from alm.training.monitoring.metrics import MetricsFile, Row, read
from alm.training.monitoring.samples import Sampler
from alm.training.monitoring.throughput import StepTimer, Throughput
from alm.training.monitoring.trackers import Trackers
from alm.training.monitoring.verdict import RunMonitor, verdict_fields
from alm.training.nonfinite import NonFiniteSteps
from alm.training.run.resolve import TrainingJob
from alm.training.run.time_budget import TimeBudget
from alm.training.sizing.eta import TimeLeft
from alm.training.state import TrainState
from alm.training.step import StepResult, train_step
from alm.training.stop import StopRequests
from alm.training.validate import Score, rows_for, validate


class TrainingSession:
    """Everything that one rank keeps while it trains a run: its state, its files, and when what is due.

    `train` may end because the number of steps changes: `changed_config` is then the new configuration. Replace `job`,
    and call `train` again.
    """

    def __init__(
        self,
        job: TrainingJob,
        state: TrainState,
        *,
        stop: StopRequests,
        trackers: Trackers,
        metrics: MetricsFile,
        writer: CheckpointWriter,
        budget: TimeBudget | None = None,
    ) -> None:
        self.job = job
        self.state = state
        self.stop = stop
        self.metrics = metrics
        self.writer = writer
        self.changed_config: RunConfig | None = None
        self._trackers = trackers
        self._budget = budget
        self._time_left = TimeLeft() if budget is None else budget.time_left()
        self._tokenizer = Tokenizer.load(job.packed.tokenizer_path)
        self._train_stream = job.packed.split(TRAIN)
        self._validation_stream = job.packed.split(VALIDATION)
        self._throughput = Throughput(
            job.config, job.choice, seq_len=self._train_stream.seq_len, ranks=state.parallelism.world.size
        )

    def train(self) -> bool:
        """Train up to `training.max_steps`; return whether it got there and the last step was scored.

        It also gets there where the run can only get worse: then `gave_up` says why.

        Returns early, after a complete step, when a stop is requested or the number of steps changes. A step whose
        loss or gradient is not finite is skipped; raises `AlmError` after `training.max_skipped_in_row` of them, or
        when a weight is not finite.
        """
        self._prepare()
        self._catch_up()
        if self.gave_up is None:
            self._train_steps()
        self._nonfinite.check()
        is_at_end = self.gave_up is not None or self.state.step >= self.job.config.training.max_steps
        return is_at_end and not self._was_cut

    def _train_steps(self) -> None:
        self.job.on_event(TrainingBegan(self.state.step, self.job.config.training.max_steps))
        with collector_paused(), self._loader() as loader:
            for step, micro_batches in self._clock.waiting(loader):
                result = self._step(step, micro_batches)
                if result is None:
                    break
                self._after_step(result)
                if self.gave_up is not None or self.stop.agreed() or self._changes_length():
                    break
            else:
                if self.state.step < self.job.config.training.max_steps:
                    # The loader gave up because of a stop. The other ranks ask before their next micro-batch, and
                    # asking is a collective: without this call they would wait forever.
                    self.stop.agreed()

    def _prepare(self) -> None:
        """Set up what depends on the number of steps."""
        config = self.job.config
        self._plan = plan_batches(config, self._train_stream)
        self._validation_rows = rows_for(
            self._validation_stream, self._tokenizer.bytes_per_id, wanted_bytes=config.validation.bytes
        )
        self._nonfinite = NonFiniteSteps(
            self.state,
            self._plan,
            most_in_row=config.training.max_skipped_in_row,
            metrics=self.metrics,
            on_event=self.job.on_event,
        )
        self._monitor = self._new_monitor()
        self._sampler = self._new_sampler()
        self._best: float | None = None
        self.gave_up: str | None = None  # why the run has stopped by itself
        self._was_cut = False  # whether a stop has cut a validation short
        self._clock = StepTimer(self.state.step)
        self._shown_at: float | None = None  # when a loss was last read for the display alone

    def _new_monitor(self) -> RunMonitor | None:
        """Return the judge of the main rank, which alone reports how the run goes."""
        job = self.job
        if not job.world.is_main:
            return None
        # Reference curves are of runs that start from random weights.
        known = reference.matching(job.config, job.packed.metadata) if job.initial is None else None
        steps = job.config.training.max_steps
        return RunMonitor(steps, partial(lr_factor, job.config), known, keeps_best=job.keeps_best)

    def _new_sampler(self) -> Sampler | None:
        """Return the sampler of the main rank, if that has all of the model; the other ranks wait for it."""
        job, state = self.job, self.state
        if not job.world.is_main or not job.config.samples.prompts or not state.parallelism.has_full_model:
            return None
        return Sampler(
            state.model,
            self._tokenizer,
            job.config,
            held_out=self._validation_stream,
            run=job.out,
            should_stop=self.stop.is_requested,
            on_event=self._trackers.with_samples(job.on_event),
            turns=self._turns(),
        )

    def _turns(self) -> Turns | None:
        """Return the tokens of turns, if the text is conversations."""
        found = self.job.packed.metadata.conversations
        return None if found is None else Turns.of(ChatFormat.model_validate(found.chat), self._tokenizer)

    def _catch_up(self) -> None:
        """Make up for samples and validation of the resumed step that a stop cut short or a full disk lost."""
        step = self.state.step
        if self._sampler is not None:
            with self._clock.paused(), self.state.averaged():
                judged = self._sampler.catch_up(step)
            if judged is not None:
                self.metrics.write(judged)
        if self._monitor is not None:
            self._monitor.catch_up(read(self.metrics.run))
        scores: list[Row] = self.job.world.from_main(
            lambda: [row for row in read(self.metrics.run) if "bits_per_byte" in row]
        )
        self._best = min((row["bits_per_byte"] for row in scores), default=None)
        if step and all(row["step"] != step for row in scores):
            self._validate_and_save(last=step >= self.job.config.training.max_steps, resumed=True)
        elif step:
            self.gave_up = self._gives_up()

    def _loader(self) -> Loader:
        """Return the loader of this rank's micro-batches, which reads ahead in a thread."""
        world = self.state.parallelism.world
        return Loader(
            self._train_stream,
            self._plan,
            first_step=self.state.step,
            last_step=self.job.config.training.max_steps,
            prefetch=self.job.config.data.prefetch,
            pin=self.job.choice.device.type == "cuda",
            rank=world.rank,
            world_size=world.size,
            should_stop=self.stop.is_requested,
        )

    def _step(self, step: int, micro_batches: list[MicroBatch]) -> StepResult | None:
        """Do update number `step` (counted from 0); return None, without an update, when the ranks agree to stop."""
        config = self.job.config
        return train_step(
            self.state,
            micro_batches,
            # No collective: a batch is a pure function of the step, so every rank computes the same number.
            targets=target_count(self._train_stream, self._plan, step),
            choice=self.job.choice,
            lr_factor=lr_factor(config, step),
            clip_norm=config.training.gradient_clip_norm,
            seed=config.training.seed,
            should_stop=self.stop.agreed,
            z_weight=config.training.z_loss,
        )

    def _changes_length(self) -> bool:
        """Ask the time budget, if there is one, whether the run gets another number of steps."""
        if self._budget is not None:
            self.changed_config = self._budget.new_length(self.job.config, self._time_left, step=self.state.step)
        return self.changed_config is not None

    def _after_step(self, result: StepResult) -> None:
        """Do the work that is due after the step that `state` has just finished."""
        config, step = self.job.config, self.state.step
        lr, last = self.state.optimizer.param_groups[0]["lr"], step >= config.training.max_steps
        self._nonfinite.record(step, result)
        # Reading a loss waits for the device, so it is read at these steps only.
        if last or step % config.logging.log_interval == 0:
            self._log(result, lr)
        else:
            self.job.on_event(Stepped(step, config.training.max_steps, lr, 0.0, shown_loss=self._shown_loss(result)))
        # After the row of this step: if a save in the background failed, this raises, and the error path saves this
        # step, whose row must then be in the file.
        self.writer.poll()
        if self._sampler is not None and self._sampler.is_due(step):
            with self._clock.paused(self._time_left.paused("samples")), self.state.averaged():
                judged = self._sampler.sample(step)
            if judged is not None:
                self.metrics.write(judged)
        self._validate_and_save(last=last)

    def _shown_loss(self, result: StepResult) -> float | None:
        """Read the loss for the display: of the first step, and on a CPU, where reading it waits for nothing, about one
        a second.
        """
        now = time.monotonic()
        is_due = self._shown_at is None or (self.job.choice.device.type == "cpu" and now - self._shown_at >= 1)
        if not is_due or not self.job.world.is_main:
            return None
        self._shown_at = now
        loss = float(result.loss)
        return loss if math.isfinite(loss) else None

    def _log(self, result: StepResult, lr: float) -> None:
        """Write the row of this step, and report it."""
        self._nonfinite.check()  # reading the loss below waits for the device anyway
        config, state = self.job.config, self.state
        step, loss = state.step, float(result.loss)
        values = {"loss": loss, "gradient_norm": float(result.gradient_norm)}
        lap = self._clock.lap(step)
        reading = self._throughput.measure(lap)
        self._time_left.stepped(lap)
        row: Row = {
            "step": step,
            # JSON has no NaN or infinity.
            **{name: value for name, value in values.items() if math.isfinite(value)},
            **{name: float(value) for name, value in state.model.routing().items()},
            "lr": lr,
            "tokens": step * config.training.sequences_per_step * self._train_stream.seq_len,
            **reading.row(),
            "skipped_steps": state.skipped_steps,
            **({} if state.scaler is None else {"loss_scale": float(state.scaler.scale)}),
        }
        self.metrics.write(row)
        if self._monitor is not None:
            self._monitor.add(row)
        self.job.on_event(
            Stepped(
                step,
                config.training.max_steps,
                lr,
                reading.tokens_per_second,
                loss=loss if math.isfinite(loss) else None,
                seconds_left=self._time_left.eta(config, step),
                mfu=reading.mfu,
                memory_bytes=reading.memory_bytes,
                data_wait_share=reading.data_wait_share,
            )
        )

    def _validate_and_save(self, *, last: bool, resumed: bool = False) -> None:
        """Score this step and save a checkpoint, each if it is due."""
        config, step = self.job.config, self.state.step
        score: Score | None = None
        if len(self._validation_rows) and (last or step % config.validation.interval == 0):
            score = self._validate()
            if score is None:  # asked to stop: the step is saved as interrupted and scored on resume
                self._was_cut = True
                return
        if score is not None and not math.isfinite(score.bits_per_byte):
            score = None  # reported already, and useless for choosing the best checkpoint
        is_best = score is not None and (self._best is None or score.bits_per_byte < self._best)
        if score is not None and is_best:
            self._best = score.bits_per_byte
        if score is not None:
            self.gave_up = self._gives_up()
        # A resumed step has its checkpoint already, unless its score, known only now, makes it the best one.
        intervals = (config.training.checkpoint_interval, config.training.keep_every)
        last = last or self.gave_up is not None
        is_due = not resumed and (last or any(every and step % every == 0 for every in intervals))
        if is_due or (self.job.keeps_best and is_best):
            self._save(score)

    def _gives_up(self) -> str | None:
        """Return why the run stops by itself at this step, if it does. Ranks call it together; the main rank decides.

        A function of the recorded rows, so that a run that was killed stops at the same step.
        """
        job, step, monitor = self.job, self.state.step, self._monitor
        if not job.stops_when_worse or step >= job.config.training.max_steps:
            return None
        return job.world.from_main(
            lambda: monitor.can_only_get_worse(step, after=job.stopped_before) if monitor is not None else None
        )

    def _validate(self) -> Score | None:
        """Score this step and record the score; return None when asked to stop."""
        with self._clock.paused(self._time_left.paused("validation")):
            with self.state.averaged():
                score = validate(
                    self.state.parallelism,
                    self._validation_stream,
                    self._tokenizer.bytes_per_id,
                    rows=self._validation_rows,
                    micro_batch_size=self.job.config.training.micro_batch_size,
                    choice=self.job.choice,
                    should_stop=self.stop.agreed,
                )
            gc.collect()  # the collector is off during steps, and this pause counts as validation anyway
        if score is None:
            return None
        step, judged = self.state.step, None
        if math.isfinite(score.bits_per_byte):  # JSON has no NaN or infinity
            known = {} if score.margin is None else {"bits_per_byte_margin": score.margin}
            row = {"step": step, "validation_loss": score.loss, "bits_per_byte": score.bits_per_byte, **known}
            judged = None if self._monitor is None else self._monitor.assess(row)
            self.metrics.write(row if judged is None else row | verdict_fields(judged))
        self.job.on_event(Validated(step, score.loss, score.bits_per_byte, score.margin))
        if judged is not None:
            self.job.on_event(judged)
        return score

    def _save(self, score: Score | None) -> None:
        """Copy the state for a checkpoint; a thread writes it while training continues."""
        self._nonfinite.check()
        with self._clock.paused(self._time_left.paused("saving")):
            self.metrics.sync()  # rows first: resuming from a checkpoint never lacks the rows before it
            checkpoint = self.job.checkpoint(self.state)
            self.writer.save(checkpoint, bits_per_byte=None if score is None else score.bits_per_byte)
            gc.collect()


def lr_factor(config: RunConfig, step: int) -> float:
    """Return the factor on the peak learning rates in update number `step` (counted from 0)."""
    schedule = kinds.module_of(config.scheduler)
    factor: float = schedule.factor(config.scheduler, step, max_steps=config.training.max_steps)
    return factor


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Disable automatic garbage collection: a pause of one rank makes all ranks wait. The loop collects in its pauses.

    Objects that are alive at the start are frozen, so that a collection visits only new objects. Both are undone at the
    end; objects that were frozen before stay frozen.
    """
    was_enabled, had_frozen = gc.isenabled(), gc.get_freeze_count() > 0
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        if not had_frozen:
            gc.unfreeze()
        if was_enabled:
            gc.enable()
