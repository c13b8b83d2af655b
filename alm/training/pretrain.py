"""The stage `alm pretrain`: packed data in, a run folder with checkpoints out.

Kill it at any instant: the run continues from its newest whole checkpoint and ends in the same bits.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from alm import device, distributed
from alm.artifacts import RunMetadata
from alm.checkpoint.background import CheckpointWriter, NoWriter
from alm.checkpoint.format import is_interrupted
from alm.checkpoint.load import Found, newest
from alm.checkpoint.retain import reconcile
from alm.corpus.split import TRAIN, VALIDATION
from alm.errors import AlmError
from alm.events import CheckpointSaved, Listener, Noted, Warned, ignore
from alm.files import is_full
from alm.packing.shards import open_packed
from alm.tokenizers.file import Tokenizer
from alm.training import metrics, reference, rehearsal, run, samples
from alm.training.beginning import check_room, state_of, warn, warn_of_repeats, write_config
from alm.training.config import RunConfig
from alm.training.ending import SavedOnError, checkpoint_of, finish, out_of_time, score_of, stopped
from alm.training.initial import initial_weights
from alm.training.job import Job
from alm.training.loop import Hooks, Streams, lr_factor, train
from alm.training.mirror import Mirror, mirrored
from alm.training.pace import Pace
from alm.training.settle import Resume, settle
from alm.training.state import TrainState
from alm.training.stop import Agreement, Reason, StopRequests
from alm.training.throughput import Gauge
from alm.training.timekeeper import Budget, Timekeeper
from alm.training.verdict import Judge

_STOPPING = Noted("stopping after this micro-batch; once more stops at once, without saving")


def pretrain(
    config: RunConfig,
    *,
    data: Path,
    out: Path,
    init: Path | None = None,
    device_name: str = "auto",
    resume: Resume = "auto",
    deadline: float | None = None,
    finish_by: float | None = None,
    started: float | None = None,
    on_event: Listener = ignore,
) -> RunMetadata:
    """Train a model on the packed `data` in the run folder `out`, from the start or from a checkpoint.

    With `init` a run that begins has the weights of that checkpoint, of the same tokenizer, and all else is new; one
    that goes on must have begun from it.

    `resume`: "auto" continues the run in `out` if there is one, "never" refuses to, a path continues
    from that checkpoint. A finished run is left as it is. Raises `StoppedError` after saving when a
    signal asked for it, or at `deadline` (of `time.monotonic`). Any other error in the middle saves too. Where the
    deadline comes before the first step was done, that is an error: `started` is when the command began.

    `finish_by`, also of `time.monotonic`, is for a run that begins: it gets as many steps as will be done by then, and
    what else is counted in steps in proportion. As long as its schedule allows, their number follows the machine. A run
    that goes on keeps what was chosen.

    Where memory is full, micro-batches are halved and the run goes on, which the configuration of the run and the next
    run on this device remember. The curve stays but for rounding, unless a layer works on micro-batches (`fit.curve`).

    Under `torchrun` every rank calls this with the same arguments. The main rank decides, and it alone writes.
    """
    limit = None if deadline is None else _Limit(time.monotonic() if started is None else started, deadline)
    with distributed.joined(device_name) as world, contextlib.ExitStack() as stack:
        # Before anything is looked at: what is found must still be so when it is gone on from.
        world.from_main(lambda: stack.enter_context(run.locked(out)))
        # Only the main rank surely sees the folder.
        begun, has_budget = world.from_main(lambda: run.exists(out)), finish_by is not None
        initial = world.from_main(lambda: initial_weights(init, out, open_packed(data), config.model))
        settled = world.from_main(lambda: settle(config, data, out, resume, world, on_event, has_budget=has_budget))
        training = settled.config.training
        choice = device.choose(str(world.device), precision=training.precision)
        device.set_threads(int(training.threads))
        if choice.device.type == "cpu":
            device.keep_freed_memory()
        if training.reproducible:
            device.set_deterministic(choice.device)
        job = Job(
            settled.config,
            open_packed(data),
            out,
            choice,
            settled.environment,
            world,
            settled.asked,
            on_event,
            initial=initial,
        )
        if settled.found is not None and settled.is_finished:
            step = settled.found.step
            return world.from_main(lambda: _up_to_date(job, step))
        rehearsal.let_go(choice.device)  # what was tried above would count as taken
        fitting = job.fitting()
        config, budget = fitting.tried(job.config), None
        if finish_by is not None and not begun:
            config, budget = fitting.budgeted(config, finish_by=finish_by)
        job = replace(job, config=config)
        return _fitted(job, settled.found, budget, limit)


def _up_to_date(job: Job, step: int) -> RunMetadata:
    """What a finished run says, once its files are what that implies: a kill may have come just before its end."""
    if os.access(job.out, os.W_OK) and reconcile(job.out, job.retention):
        job.on_event(Noted(f"links and old checkpoints of `{job.out}` were not up to date, and are now"))
    job.on_event(Noted(f"`{job.out}` is up to date: finished at step {step}"))
    return finish(job, step)


@dataclass(frozen=True)
class _Limit:
    """When the command began, and when it has to end, of `time.monotonic`."""

    started: float
    deadline: float


def _fitted(job: Job, found: Found | None, budget: Budget | None, limit: _Limit | None) -> RunMetadata:
    """Train; where memory is full, go on from the newest checkpoint with smaller micro-batches."""
    fitting, begun = job.fitting(), 0 if found is None else found.step
    while True:
        try:
            return _train(job, state_of(job, found), budget, limit, found=found, begun=begun)
        except (RuntimeError, MemoryError) as error:
            if not device.is_out_of_memory(error):
                raise
            if job.world.size > 1:  # the others are in the middle of a step
                fitting.remember(job.config)
                raise fitting.out_of_memory(job.config) from error
            job = replace(job, config=fitting.halved(run.read_config(job.out)))  # its length may have changed
        rehearsal.let_go(job.choice.device)  # here: the error had hold of everything
        found = newest(job.out, on_event=job.on_event)


def _train(
    job: Job, state: TrainState, budget: Budget | None, limit: _Limit | None, *, found: Found | None, begun: int
) -> RunMetadata:
    """Train from `found` on; `begun` is the step at which this start of the command began."""
    tokenizer = Tokenizer.load(job.packed.tokenizer_path)
    streams = Streams(job.packed.split(TRAIN), job.packed.split(VALIDATION), tokenizer.bytes_per_id)
    warn(job, streams)
    world = job.world
    world.from_main(lambda: check_room(job, state, found))
    resumed, pace = state.step, Pace() if budget is None else budget.pace()
    keeper = Timekeeper(job.config, budget, pace, world=world, on_event=job.on_event)
    with (
        StopRequests(
            deadline=None if limit is None else limit.deadline,
            on_request=partial(job.on_event, _STOPPING),
            has_progressed=lambda: state.step > begun,
        ) as requests,
        _mirror(job, state) as mirror,
        _metrics(job, mirror) as rows,
        _writer(job) as writer,
        SavedOnError(job, state, writer) as saved,
    ):
        agreement = Agreement(requests, world)
        gauge = Gauge(job.config, job.choice, seq_len=streams.train.seq_len, ranks=world.size)
        sitting = _Sitting(state, tokenizer, streams, requests, agreement, mirror, rows, writer, gauge, pace)
        while True:
            finished = sitting.train(saved.job, keeper)
            if keeper.changed is None:
                break
            saved.job = sitting.changed(saved.job, keeper.changed)
            keeper.go_on(saved.job.config)
        job = saved.job
        writer.wait()
        rows.sync()
        if not finished:
            if limit is not None and agreement.reason is Reason.OUT_OF_TIME and state.step == begun:
                raise out_of_time(time.monotonic() - limit.started)
            path = writer.save_now(checkpoint_of(job, state), interrupted=True)
            raise stopped(job, path, state.step, agreement.reason)
        # The disk was full, and may have room now; or all that was missing is what follows the last step.
        is_new = state.step > resumed or (found is not None and is_interrupted(found.path))
        if is_new and not world.from_main(lambda: writer.has_saved(state.step)):
            writer.save_now(checkpoint_of(job, state), bits_per_byte=score_of(job, state.step))
    return world.from_main(lambda: finish(job, state.step))


@dataclass(frozen=True)
class _Sitting:
    """What stays as it is for as long as a process trains, also where the length of its run changes."""

    state: TrainState
    tokenizer: Tokenizer
    streams: Streams
    requests: StopRequests
    agreement: Agreement
    mirror: Mirror
    rows: metrics.MetricsFile
    writer: CheckpointWriter
    gauge: Gauge
    pace: Pace

    def train(self, job: Job, keeper: Timekeeper) -> bool:
        """Whether `job` is finished: it may be asked to stop, or have another length from some step on."""
        stop_wanted = partial(_is_asked, self.requests)
        hooks = Hooks(
            stop_wanted=stop_wanted,
            should_stop=self.agreement,
            on_event=job.on_event,
            save=partial(_save, job, self.state, self.writer),
            settle=self.writer.settle,
            gauge=self.gauge,
            judge=_judge(job),
            sampler=_sampler(job, self, should_stop=stop_wanted),
            is_changed=keeper,
            pace=self.pace,
        )
        return train(self.state, job.config, self.streams, choice=job.choice, metrics=self.rows, hooks=hooks)

    def changed(self, job: Job, config: RunConfig) -> Job:
        """`job` with another configuration from here on; `job` as it is where the disk has no room to say so.

        A checkpoint comes first: what was done before the change is not done again after it.
        """
        other = replace(job, config=config)
        self.writer.wait()
        self.rows.sync()
        if not job.world.from_main(lambda: self.writer.has_saved(self.state.step)):
            _save(other, self.state, self.writer, None)
            self.writer.wait()
        return other if job.world.from_main(lambda: self._is_noted(job, other)) else job

    def _is_noted(self, job: Job, other: Job) -> bool:
        """Make the folder say that the run is now `other`; whether there was room for that, and for what it will save.

        Where not, it has been told why.
        """
        if not self.writer.has_saved(self.state.step):
            return False
        is_longer = other.config.training.max_steps > job.config.training.max_steps
        try:
            if is_longer:
                check_room(other, self.state, None)
            write_config(other)
        except AlmError as error:
            if error.__cause__ is not None and not is_full(error):
                raise
            job.on_event(Warned(f"the run keeps its length: {error.message}", error.hint))
            return False
        if is_longer:
            warn_of_repeats(other, self.streams)
        return True


def _mirror(job: Job, state: TrainState) -> contextlib.AbstractContextManager[Mirror]:
    """Who hands rows and samples on: the main rank, which alone has some."""
    if not job.world.is_main:
        return contextlib.nullcontext(Mirror(job.on_event))
    return mirrored(job.config, job.out, step=state.step, on_event=job.on_event)


def _metrics(job: Job, mirror: Mirror) -> metrics.MetricsFile:
    if not job.world.is_main:
        return metrics.NoMetrics(job.out)
    return metrics.MetricsFile(job.out, on_event=job.on_event, mirror=mirror.row)


def _writer(job: Job) -> CheckpointWriter:
    def on_saved(step: int, path: Path) -> None:
        job.on_event(CheckpointSaved(step, path))

    def on_full(error: AlmError) -> None:
        job.on_event(Warned(f"no checkpoint was saved: {error.message}; the run goes on and tries again", error.hint))

    kind = CheckpointWriter if job.world.is_main else NoWriter
    return kind(job.out, job.retention, on_saved=on_saved, on_full=on_full)


def _is_asked(requests: StopRequests) -> bool:
    return requests.reason is not None


def _sampler(job: Job, sitting: _Sitting, *, should_stop: Callable[[], bool]) -> samples.Sampler | None:
    """Who writes samples: the main rank alone, if it has all of the model; the others wait."""
    state = sitting.state
    if not job.world.is_main or not job.config.samples.prompts or not state.sharing.is_whole_here:
        return None
    return samples.Sampler(
        state.model,
        sitting.tokenizer,
        job.config,
        held_out=sitting.streams.validation,
        run=job.out,
        should_stop=should_stop,
        on_event=sitting.mirror.hearing(job.on_event),
    )


def _judge(job: Job) -> Judge | None:
    """Who says how the run goes: the main rank."""
    if not job.world.is_main:
        return None
    # References are of runs that begin with random weights.
    known = reference.matching(job.config, job.packed.metadata) if job.initial is None else None
    return Judge(job.config.training.max_steps, partial(lr_factor, job.config), known)


def _save(job: Job, state: TrainState, writer: CheckpointWriter, bits_per_byte: float | None) -> None:
    writer.save(checkpoint_of(job, state), bits_per_byte=bits_per_byte)
