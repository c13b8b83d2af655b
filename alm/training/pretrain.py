"""The stage `alm pretrain`: packed data in, a run folder with checkpoints out.

Kill it at any instant: the run continues from its newest complete checkpoint and ends in the same bits.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from alm import device, distributed
from alm.artifacts import RunMetadata
from alm.checkpoint.background import CheckpointWriter, NoWriter
from alm.checkpoint.format import is_interrupted
from alm.checkpoint.load import newest
from alm.checkpoint.retain import repair
from alm.errors import AlmError
from alm.events import CheckpointSaved, Listener, Noted, Warned, ignore
from alm.files import is_full
from alm.training.config import RunConfig
from alm.training.loop import TrainingSession
from alm.training.monitoring.metrics import MetricsFile, NoMetrics
from alm.training.monitoring.trackers import Trackers, open_trackers
from alm.training.run import run_folder
from alm.training.run.finish import (
    SaveOnError,
    finish,
    how_it_ended,
    out_of_time_error,
    recorded_score,
    stopped_error,
)
from alm.training.run.resolve import Resume, TrainingJob, resolve
from alm.training.run.start import check_disk_space, load_start_point_, prepare_run, warn_of_repeats, write_config
from alm.training.run.time_budget import TimeBudget
from alm.training.sizing import probe
from alm.training.state import TrainState, init_state
from alm.training.stop import StopReason, StopRequests

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
    (`memory.describe_curve`).

    Under `torchrun` every rank calls this with the same arguments. The main rank decides, and only it writes.
    """
    started = time.monotonic() if started is None else started
    with distributed.joined(device_name) as world, contextlib.ExitStack() as stack:
        # Lock before reading anything: what is found must still hold when the run continues from it.
        world.from_main(lambda: stack.enter_context(run_folder.locked(out)))
        job = resolve(
            config,
            data=data,
            out=out,
            init=init,
            resume=resume,
            has_budget=finish_by is not None,
            world=world,
            on_event=on_event,
        )
        if job.is_finished:
            return world.from_main(lambda: _up_to_date(job))
        job, budget = _fit(job, started, finish_by)
        return _train_within_memory(job, budget, deadline=deadline, started=started)


def _up_to_date(job: TrainingJob) -> RunMetadata:
    """Report a finished run, after completing its files: a kill may have come just before its end."""
    assert job.found is not None
    if os.access(job.out, os.W_OK) and repair(job.out, job.retention):
        job.on_event(Noted(f"links and old checkpoints of `{job.out}` were out of date and have been updated"))
    made = finish(job, job.found.step)
    job.on_event(Noted(f"`{job.out}` is up to date: {how_it_ended(job, made)}"))
    return made


def _fit(job: TrainingJob, started: float, finish_by: float | None) -> tuple[TrainingJob, TimeBudget | None]:
    """Fit the run into the memory of the device, and a new one into its time."""
    probe.release_memory(job.choice.device)  # else memory of the trials so far would count as used
    limits = job.limits()
    config, budget = limits.fit_memory(job.config), None
    if finish_by is not None and job.is_new:
        config, budget = limits.fit_time(config, started=started, finish_by=finish_by)
    return replace(job, config=config), budget


def _train_within_memory(
    job: TrainingJob, budget: TimeBudget | None, *, deadline: float | None, started: float
) -> RunMetadata:
    """Train; when memory is full, continue from the newest checkpoint with smaller micro-batches."""
    limits, first_step = job.limits(), 0 if job.found is None else job.found.step
    while True:
        try:
            return _train(job, budget, first_step=first_step, deadline=deadline, started=started)
        except (RuntimeError, MemoryError) as error:
            if not device.is_out_of_memory(error):
                raise
            if job.world.size > 1:  # the other ranks are in the middle of a step and cannot join a retry
                limits.remember(job.config)
                raise limits.out_of_memory(job.config) from error
            # From the folder: a budget may have changed the number of steps since.
            config = limits.halved(run_folder.read_config(job.out))
        # Only here: inside `except`, the traceback still refers to the model and its activations.
        probe.release_memory(job.choice.device)
        job = replace(job, config=config, found=newest(job.out, on_event=job.on_event))


def _train(
    job: TrainingJob, budget: TimeBudget | None, *, first_step: int, deadline: float | None, started: float
) -> RunMetadata:
    """Train from `job.found` on; `first_step` is the step at which this command started."""
    with job.limits().weights_must_fit(job.config):
        state = init_state(job.config, job.choice, job.world, seq_len=job.packed.metadata.seq_len)
        load_start_point_(job, state)
    prepare_run(job, state)
    with (
        StopRequests(
            job.world,
            deadline=deadline,
            on_request=partial(job.on_event, _STOPPING),
            has_progressed=lambda: state.step > first_step,
        ) as stop,
        _trackers(job, state) as trackers,
        _metrics(job, trackers) as metrics,
        _writer(job) as writer,
        SaveOnError(
            TrainingSession(job, state, stop=stop, trackers=trackers, metrics=metrics, writer=writer, budget=budget)
        ) as session,
    ):
        is_done = session.train()
        while session.changed_config is not None:
            _change_length(session, session.changed_config)
            is_done = session.train()
        writer.wait()
        metrics.sync()
        if is_done:
            _save_last(session)
        elif stop.agreed_reason is StopReason.OUT_OF_TIME and state.step == first_step:
            raise out_of_time_error(time.monotonic() - started)
        else:
            path = writer.save_now(session.job.checkpoint(state), interrupted=True)
            raise stopped_error(session.job, path, state.step, stop.agreed_reason)
    made = job.world.from_main(lambda: finish(session.job, state.step))
    if session.gave_up is not None:
        job.on_event(Noted(how_it_ended(session.job, made)))
    return made


def _save_last(session: TrainingSession) -> None:
    """Save the last step if the loop has not: the disk was full then, or only the work after the step was missing."""
    job, state = session.job, session.state
    is_new = job.found is None or state.step > job.found.step or is_interrupted(job.found.path)
    if is_new and not job.world.from_main(lambda: session.writer.has_saved(state.step)):
        score = recorded_score(job, state.step)
        session.writer.save_now(job.checkpoint(state), bits_per_byte=None if score is None else score["bits_per_byte"])


def _change_length(session: TrainingSession, config: RunConfig) -> None:
    """Continue the run with `config`, or unchanged if the disk has no room to record that.

    A checkpoint comes first: steps from before the change must not be repeated under the new configuration.
    """
    job, step, writer = session.job, session.state.step, session.writer
    session.changed_config = None
    changed = replace(job, config=config)
    writer.wait()
    session.metrics.sync()
    if not job.world.from_main(lambda: writer.has_saved(step)):
        writer.save(changed.checkpoint(session.state))
        writer.wait()
    if job.world.from_main(lambda: writer.has_saved(step) and _record_length(changed, job, session.state)):
        session.job, writer.retention = changed, changed.retention


def _record_length(changed: TrainingJob, job: TrainingJob, state: TrainState) -> bool:
    """Record in the folder that the run is now `changed`; return whether the disk has room for that and for its
    checkpoints. If not, a warning says why.
    """
    is_longer = changed.config.training.max_steps > job.config.training.max_steps
    try:
        if is_longer:
            check_disk_space(replace(changed, found=None), state)  # by its size as counted: the file may be gone
        write_config(changed)
    except AlmError as error:
        if error.__cause__ is not None and not is_full(error):
            raise
        job.on_event(Warned(f"the run keeps its length: {error.message}", error.hint))
        return False
    if is_longer:
        warn_of_repeats(changed, before=job.config)
    return True


def _trackers(job: TrainingJob, state: TrainState) -> contextlib.AbstractContextManager[Trackers]:
    """Return the trackers of rows and samples; only the main rank has any."""
    if not job.world.is_main:
        return contextlib.nullcontext(Trackers(job.on_event))
    return open_trackers(job.config, job.out, step=state.step, on_event=job.on_event)


def _metrics(job: TrainingJob, trackers: Trackers) -> MetricsFile:
    if not job.world.is_main:
        return NoMetrics(job.out)
    return MetricsFile(job.out, on_event=job.on_event, pass_on=trackers.row)


def _writer(job: TrainingJob) -> CheckpointWriter:
    def on_saved(step: int, path: Path) -> None:
        job.on_event(CheckpointSaved(step, path))

    def on_full(error: AlmError) -> None:
        job.on_event(Warned(f"no checkpoint was saved: {error.message}; the run continues and tries again", error.hint))

    kind = CheckpointWriter if job.world.is_main else NoWriter
    return kind(job.out, job.retention, on_saved=on_saved, on_full=on_full)
