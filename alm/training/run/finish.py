"""Ends a run: saves a checkpoint that can be resumed, and records the result."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import TracebackType

from alm import artifacts
from alm.artifacts import BestScore, RunMetadata, RunResult
from alm.checkpoint.choose import choose
from alm.errors import EXIT_FAILURE, AlmError, StoppedError
from alm.events import Warned
from alm.files import is_full
from alm.training.loop import TrainingSession
from alm.training.monitoring import metrics
from alm.training.monitoring.verdict import why_worse
from alm.training.run import run_folder
from alm.training.run.resolve import TrainingJob
from alm.training.stop import StopReason


def recorded_score(job: TrainingJob, step: int) -> metrics.Row | None:
    """Return the row with the score of the held-out text after `step`, or None if it was not scored then."""
    found = [row for row in metrics.read(job.out) if row["step"] == step and "bits_per_byte" in row]
    return found[-1] if found else None


class SaveOnError:
    """Context that saves the last complete step of `session` when it ends in an error other than a stop.

    States that cannot be resumed are not saved: an unfinished update, weights that are not finite, or skipped steps
    at the end. Nor is a model of which the main rank has only a part: other ranks may be gone.
    """

    def __init__(self, session: TrainingSession) -> None:
        self._session = session
        self._first_step = session.state.step

    def __enter__(self) -> TrainingSession:
        return self._session

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        job, state = self._session.job, self._session.state
        if error is None or isinstance(error, StoppedError) or is_full(error) or state.step == self._first_step:
            return
        state.optimizer.zero_grad(set_to_none=True)  # makes room, in case memory was full
        if not (job.world.is_main and state.parallelism.has_full_model):
            return
        if not state.is_consistent or state.skipped_in_row or not state.is_finite():
            return
        try:
            score = recorded_score(job, state.step)
            self._session.writer.save_now(
                job.checkpoint(state, alone=True),
                interrupted=True,
                bits_per_byte=None if score is None else score["bits_per_byte"],
            )
        except AlmError as fault:
            job.on_event(Warned(f"step {state.step} was not saved: {fault.message}", fault.hint))


def stopped_error(job: TrainingJob, path: Path, step: int, reason: StopReason | None) -> StoppedError:
    """Return the error to raise when a run that was asked to stop has saved `step` in `path`."""
    assert reason is not None, "the loop ends early only when it is asked to"
    return StoppedError(
        f"{reason.word} at step {step}; saved `{path}`",
        hint=f"run `{job.resume_command}` to continue",
        exit_code=reason.exit_code,
    )


def out_of_time_error(spent: float) -> StoppedError:
    """Return the error to raise when a time limit ends before this start has done a step, `spent` seconds into the
    command.

    Nothing is saved, and the exit code does not ask for another start: that would end the same way, again and again.
    """
    return StoppedError(
        f"the time limit was over before the first step: it counts from the start of the command, {spent:.0f} s ago, "
        "and another start would end the same way",
        hint=f"leave more time than starting takes: add `--time-limit {_as_limit(2 * spent)}`, or more",
        exit_code=EXIT_FAILURE,
    )


def _as_limit(seconds: float) -> str:
    """Return a duration in the form of `--time-limit`, rounded up.

    >>> _as_limit(41.2), _as_limit(700.0)
    ('42s', '12m')
    """
    return f"{max(1, math.ceil(seconds))}s" if seconds < 120 else f"{math.ceil(seconds / 60)}m"


def finish(job: TrainingJob, step: int) -> RunMetadata:
    """Record the result of the run from its own metrics, so that a kill just before this loses nothing."""
    before = run_folder.read_metadata(job.out)
    best, stopped = _best(job, step), None
    if step < job.config.training.max_steps:
        stopped = why_worse(job.out, step, after=job.stopped_before)
    if before.result is not None and (
        (before.result.step, before.result.best, before.result.stopped) == (step, best, stopped)
        or not os.access(job.out, os.W_OK)
    ):
        return before
    score = recorded_score(job, step) or {}
    result = RunResult(
        step=step,
        training_tokens=step * job.config.training.sequences_per_step * job.packed.metadata.seq_len,
        validation_loss=score.get("validation_loss"),
        bits_per_byte=score.get("bits_per_byte"),
        bits_per_byte_margin=score.get("bits_per_byte_margin"),
        best=best,
        stopped=stopped,
        seconds=round(metrics.training_seconds(metrics.read(job.out)), 3),
    )
    finished = before.model_copy(update={"config": job.config.model_dump(mode="json"), "result": result})
    artifacts.write(job.out / run_folder.METADATA_NAME, finished)
    return finished


def how_it_ended(job: TrainingJob, made: RunMetadata) -> str:
    """Describe the end of a finished run: its step, and why it is not the last one."""
    assert made.result is not None
    if made.result.stopped is None:
        return f"finished at step {made.result.step}"
    return (
        f"stopped at step {made.result.step} of {job.config.training.max_steps}: {made.result.stopped} "
        "(`--set training.stop_when_worse=false` trains on)"
    )


def _best(job: TrainingJob, step: int) -> BestScore | None:
    """Return the score of the checkpoint to use, None if that is the last one, of `step`."""
    found = choose(job.out)
    if found is None or found.used.step == step or found.used.bits_per_byte is None:
        return None
    row = recorded_score(job, found.used.step) or {}
    return BestScore(
        step=found.used.step,
        validation_loss=row.get("validation_loss"),
        bits_per_byte=found.used.bits_per_byte,
        bits_per_byte_margin=row.get("bits_per_byte_margin"),
    )
