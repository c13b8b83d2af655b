"""Ends a run: saves a checkpoint that can be resumed, and records the result."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType

from alm import artifacts
from alm.artifacts import RunMetadata, RunResult
from alm.checkpoint.background import CheckpointWriter
from alm.checkpoint.format import Checkpoint
from alm.errors import EXIT_FAILURE, AlmError, StoppedError
from alm.events import Warned
from alm.files import is_full
from alm.training.monitoring import metrics
from alm.training.run import run_folder
from alm.training.run.job import Job
from alm.training.state import TrainState, snapshot
from alm.training.stop import Reason


def checkpoint_of(job: Job, state: TrainState, *, alone: bool = False) -> Checkpoint:
    """Return `state` as a checkpoint; `AlmError` if it is not finite. Ranks call it together, or one `alone`."""
    is_finite = state.is_finite()
    if not (is_finite if alone else not job.world.greatest(int(not is_finite))):
        raise AlmError(
            f"a weight is no longer finite at step {state.step}; checkpoints, if any, are from earlier steps",
            hint="lower the learning rate: start another run with `--set optim.lr=...`",
        )
    return snapshot(
        state,
        job.config,
        environment=job.environment,
        tokenizer_sha256=job.packed.metadata.tokenizer_sha256,
        data_sha256=job.data_sha256,
        alone=alone,
    )


def score_of(job: Job, step: int) -> float | None:
    """Return the bits per byte of the held-out text after `step`, or None if it was not scored then."""
    found = [row["bits_per_byte"] for row in metrics.read(job.out) if row["step"] == step and "bits_per_byte" in row]
    return found[-1] if found else None


class SavedOnError:
    """Saves the last complete step when its block ends in an error other than a stop.

    States that cannot be resumed are not saved: an unfinished update, weights that are not finite, or skipped steps
    at the end. Nor is a model of which the main rank has only a part: other ranks may be gone.

    `job` may be replaced on the way.
    """

    def __init__(self, job: Job, state: TrainState, writer: CheckpointWriter) -> None:
        self.job = job
        self._state = state
        self._writer = writer
        self._begun = state.step

    def __enter__(self) -> SavedOnError:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state = self._state
        if error is None or isinstance(error, StoppedError) or is_full(error) or state.step == self._begun:
            return
        state.optimizer.zero_grad(set_to_none=True)  # makes room, in case memory was full
        if not (self.job.world.is_main and state.parallelism.is_whole_here):
            return
        if not state.is_whole or state.skipped_in_row or not state.is_finite():
            return
        try:
            checkpoint = checkpoint_of(self.job, state, alone=True)
            self._writer.save_now(checkpoint, interrupted=True, bits_per_byte=score_of(self.job, state.step))
        except AlmError as fault:
            self.job.on_event(Warned(f"step {state.step} was not saved: {fault.message}", fault.hint))


def stopped(job: Job, path: Path, step: int, reason: Reason | None) -> StoppedError:
    """Return the error to raise when a run that was asked to stop has saved `step` in `path`."""
    assert reason is not None, "the loop ends early only when it is asked to"
    return StoppedError(
        f"{reason.word} at step {step}; saved `{path}`",
        hint=f"run `{job.resume_command}` to continue",
        exit_code=reason.exit_code,
    )


def out_of_time(spent: float) -> StoppedError:
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


def finish(job: Job, step: int) -> RunMetadata:
    """Record the result of the run from its own metrics, so that a kill just before this loses nothing."""
    begun = run_folder.read_metadata(job.out)
    if begun.result is not None and begun.result.step == step:
        return begun
    rows = metrics.read(job.out)
    scores = [row for row in rows if row["step"] == step and "bits_per_byte" in row]
    result = RunResult(
        step=step,
        training_tokens=step * job.config.training.sequences_per_step * job.packed.metadata.seq_len,
        validation_loss=scores[-1]["validation_loss"] if scores else None,
        bits_per_byte=scores[-1]["bits_per_byte"] if scores else None,
        bits_per_byte_margin=scores[-1].get("bits_per_byte_margin") if scores else None,
        seconds=round(metrics.training_seconds(rows), 3),
    )
    finished = begun.model_copy(update={"config": job.config.model_dump(mode="json"), "result": result})
    artifacts.write(job.out / run_folder.METADATA_NAME, finished)
    return finished
