"""The stage `alm pretrain`: packed data in, a run folder with checkpoints out.

Kill it at any instant: the run continues from its newest complete checkpoint and ends in the same bits.
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
from alm.training.config import RunConfig
from alm.training.loop import Hooks, Streams, lr_factor, train
from alm.training.monitoring import metrics, reference, samples
from alm.training.monitoring.throughput import Throughput
from alm.training.monitoring.trackers import Trackers, mirrored
from alm.training.monitoring.verdict import Judge
from alm.training.run import run_folder
from alm.training.run.finish import SavedOnError, checkpoint_of, finish, out_of_time, score_of, stopped
from alm.training.run.initial import initial_weights
from alm.training.run.job import Job
from alm.training.run.resolve import Resume, settle
from alm.training.run.start import check_room, state_of, warn, warn_of_repeats, write_config
from alm.training.run.time_budget import Budget, Timekeeper
from alm.training.sizing import probe
from alm.training.sizing.eta import TimeLeft
from alm.training.state import TrainState
from alm.training.stop import Agreement, Reason, StopRequests

_STOPPING = Noted("stopping after this micro-batch; interrupt again to stop at once, without saving")


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

    With `init`, a new run starts from the weights of that checkpoint, which must have the same tokenizer; everything
    else is new. A resumed run must have started from the same checkpoint.

    `resume`: "auto" continues the run in `out` if there is one, "never" refuses to, a path continues
    from that checkpoint. A finished run is left unchanged. Raises `StoppedError` after saving when a
    signal asked for it, or at `deadline` (of `time.monotonic`). Any other error during training saves too. A deadline
    before the first step is done is an error: `started` is when the command started.

    `finish_by`, also of `time.monotonic`, is for a new run: it gets as many steps as will be done by then, and
    everything else counted in steps in proportion. As long as its schedule allows, the number of steps follows the
    speed of the machine. A resumed run keeps what was chosen.

    When memory is full, micro-batches are halved and the run continues; the configuration of the run and the next run
    on this device remember it. The curve stays the same but for rounding, unless a layer works on micro-batches
    (`fit.curve`).

    Under `torchrun` every rank calls this with the same arguments. The main rank decides, and only it writes.
    """
    limit = None if deadline is None else _Limit(time.monotonic() if started is None else started, deadline)
    with distributed.joined(device_name) as world, contextlib.ExitStack() as stack:
        # Lock before reading anything: what is found must still hold when the run continues from it.
        world.from_main(lambda: stack.enter_context(run_folder.locked(out)))
        # Only the main rank is sure to see the folder.
        begun, has_budget = world.from_main(lambda: run_folder.exists(out)), finish_by is not None
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
        probe.release_memory(choice.device)  # else memory of the trials above would count as used
        fitting = job.fitting()
        config, budget = fitting.tried(job.config), None
        if finish_by is not None and not begun:
            config, budget = fitting.budgeted(config, finish_by=finish_by)
        job = replace(job, config=config)
        return _fitted(job, settled.found, budget, limit)


def _up_to_date(job: Job, step: int) -> RunMetadata:
    """Report a finished run, after completing its files: a kill may have come just before its end."""
    if os.access(job.out, os.W_OK) and reconcile(job.out, job.retention):
        job.on_event(Noted(f"links and old checkpoints of `{job.out}` were out of date and have been updated"))
    job.on_event(Noted(f"`{job.out}` is up to date: finished at step {step}"))
    return finish(job, step)


@dataclass(frozen=True)
class _Limit:
    """The start and the deadline of the command, of `time.monotonic`."""

    started: float
    deadline: float


def _fitted(job: Job, found: Found | None, budget: Budget | None, limit: _Limit | None) -> RunMetadata:
    """Train; when memory is full, continue from the newest checkpoint with smaller micro-batches."""
    fitting, begun = job.fitting(), 0 if found is None else found.step
    while True:
        try:
            return _train(job, state_of(job, found), budget, limit, found=found, begun=begun)
        except (RuntimeError, MemoryError) as error:
            if not device.is_out_of_memory(error):
                raise
            if job.world.size > 1:  # the other ranks are in the middle of a step and cannot join a retry
                fitting.remember(job.config)
                raise fitting.out_of_memory(job.config) from error
            # From the folder: a budget may have changed the number of steps since.
            job = replace(job, config=fitting.halved(run_folder.read_config(job.out)))
        # Only here: inside `except`, the traceback still refers to the model and its activations.
        probe.release_memory(job.choice.device)
        found = newest(job.out, on_event=job.on_event)


def _train(
    job: Job, state: TrainState, budget: Budget | None, limit: _Limit | None, *, found: Found | None, begun: int
) -> RunMetadata:
    """Train from `found` on; `begun` is the step at which this invocation of the command started."""
    tokenizer = Tokenizer.load(job.packed.tokenizer_path)
    streams = Streams(job.packed.split(TRAIN), job.packed.split(VALIDATION), tokenizer.bytes_per_id)
    warn(job, streams)
    world = job.world
    world.from_main(lambda: check_room(job, state, found))
    resumed, pace = state.step, TimeLeft() if budget is None else budget.pace()
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
        gauge = Throughput(job.config, job.choice, seq_len=streams.train.seq_len, ranks=world.size)
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
        # The disk was full before and may have room now; or only the work after the last step was missing.
        is_new = state.step > resumed or (found is not None and is_interrupted(found.path))
        if is_new and not world.from_main(lambda: writer.has_saved(state.step)):
            writer.save_now(checkpoint_of(job, state), bits_per_byte=score_of(job, state.step))
    return world.from_main(lambda: finish(job, state.step))


@dataclass(frozen=True)
class _Sitting:
    """The objects that one process keeps while it trains, even when the number of steps changes."""

    state: TrainState
    tokenizer: Tokenizer
    streams: Streams
    requests: StopRequests
    agreement: Agreement
    mirror: Trackers
    rows: metrics.MetricsFile
    writer: CheckpointWriter
    gauge: Throughput
    pace: TimeLeft

    def train(self, job: Job, keeper: Timekeeper) -> bool:
        """Train `job`; return whether it is finished, not stopped early or changed to another length."""
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
        """Return `job` with `config` from here on, or `job` itself if the disk has no room to record that.

        A checkpoint comes first: steps from before the change must not be repeated under the new configuration.
        """
        other = replace(job, config=config)
        self.writer.wait()
        self.rows.sync()
        if not job.world.from_main(lambda: self.writer.has_saved(self.state.step)):
            _save(other, self.state, self.writer, None)
            self.writer.wait()
        return other if job.world.from_main(lambda: self._is_noted(job, other)) else job

    def _is_noted(self, job: Job, other: Job) -> bool:
        """Record in the folder that the run is now `other`; return whether the disk has room for that and for its
        checkpoints.

        If not, a warning has said why.
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


def _mirror(job: Job, state: TrainState) -> contextlib.AbstractContextManager[Trackers]:
    """Return the mirror of rows and samples; only the main rank has any."""
    if not job.world.is_main:
        return contextlib.nullcontext(Trackers(job.on_event))
    return mirrored(job.config, job.out, step=state.step, on_event=job.on_event)


def _metrics(job: Job, mirror: Trackers) -> metrics.MetricsFile:
    if not job.world.is_main:
        return metrics.NoMetrics(job.out)
    return metrics.MetricsFile(job.out, on_event=job.on_event, mirror=mirror.row)


def _writer(job: Job) -> CheckpointWriter:
    def on_saved(step: int, path: Path) -> None:
        job.on_event(CheckpointSaved(step, path))

    def on_full(error: AlmError) -> None:
        job.on_event(Warned(f"no checkpoint was saved: {error.message}; the run continues and tries again", error.hint))

    kind = CheckpointWriter if job.world.is_main else NoWriter
    return kind(job.out, job.retention, on_saved=on_saved, on_full=on_full)


def _is_asked(requests: StopRequests) -> bool:
    return requests.reason is not None


def _sampler(job: Job, sitting: _Sitting, *, should_stop: Callable[[], bool]) -> samples.Sampler | None:
    """Return the sampler of the main rank, if that has all of the model; the other ranks wait for it."""
    state = sitting.state
    if not job.world.is_main or not job.config.samples.prompts or not state.parallelism.is_whole_here:
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
    """Return the judge of the main rank, which alone reports how the run goes."""
    if not job.world.is_main:
        return None
    # Reference curves are of runs that start from random weights.
    known = reference.matching(job.config, job.packed.metadata) if job.initial is None else None
    return Judge(job.config.training.max_steps, partial(lr_factor, job.config), known)


def _save(job: Job, state: TrainState, writer: CheckpointWriter, bits_per_byte: float | None) -> None:
    writer.save(checkpoint_of(job, state), bits_per_byte=bits_per_byte)
