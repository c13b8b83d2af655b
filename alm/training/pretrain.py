"""The stage `alm pretrain`: packed data in, a run folder with checkpoints out.

Kill it at any instant: the run continues from its newest whole checkpoint and ends in the same bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType

from alm import artifacts, device, distributed
from alm.artifacts import RunMetadata, RunResult
from alm.checkpoint.background import CheckpointWriter, NoWriter
from alm.checkpoint.format import LAST_NAME, Checkpoint
from alm.checkpoint.load import Found, load_checkpoint, newest
from alm.checkpoint.retain import Retention, set_aside_later
from alm.checkpoint.space import check_space
from alm.config.load import write_yaml
from alm.corpus.split import TRAIN, VALIDATION
from alm.data.mixture import Mixture
from alm.device import Choice
from alm.distributed import World
from alm.errors import AlmError, StoppedError
from alm.events import CheckpointSaved, Listener, Noted, Resumed, Warned, ignore
from alm.files import is_full, sha256, write_text
from alm.model.count import count
from alm.optim.schedules import warmup_steps
from alm.packing.shards import METADATA_NAME as PACK_METADATA_NAME
from alm.packing.shards import PackedData, open_packed
from alm.tokenizers.file import Tokenizer
from alm.training import metrics, reference, rehearsal, run, samples
from alm.training.available import available_bytes
from alm.training.budget import MANY_EPOCHS, keeping_choices
from alm.training.config import RunConfig
from alm.training.fit import checkpoint_bytes
from alm.training.fitting import Fitting
from alm.training.loop import Hooks, Streams, lr_factor, planned, train
from alm.training.mirror import Mirror, mirrored
from alm.training.settle import Resume, settle
from alm.training.state import TrainState, fresh, restore_, snapshot
from alm.training.stop import Agreement, Reason, StopRequests
from alm.training.verdict import Judge

_STOPPING = Noted("stopping after this micro-batch; once more stops at once, without saving")


def pretrain(
    config: RunConfig,
    *,
    data: Path,
    out: Path,
    device_name: str = "auto",
    resume: Resume = "auto",
    deadline: float | None = None,
    finish_by: float | None = None,
    on_event: Listener = ignore,
) -> RunMetadata:
    """Train a model on the packed `data` in the run folder `out`, from the start or from a checkpoint.

    `resume`: "auto" continues the run in `out` if there is one, "never" refuses to, a path continues
    from that checkpoint. A finished run is left as it is. Raises `StoppedError` after saving when a
    signal asked for it, or at `deadline` (of `time.monotonic`). Any other error in the middle saves too.

    `finish_by`, also of `time.monotonic`, is for a run that begins: it gets as many steps as will be done by then, and
    what else is counted in steps in proportion. A run that goes on keeps what was chosen when it began.

    Where memory is full, micro-batches are halved and the run goes on: the same curve, which the configuration of the
    run and the next run on this device remember.

    Under `torchrun` every rank calls this with the same arguments. The main rank decides, and it alone writes.
    """
    with distributed.joined(device_name) as world:
        # Only the main rank surely sees the folder.
        begun = finish_by is not None and world.from_main(lambda: run.exists(out))
        settled = world.from_main(
            lambda: settle(_as_begun(config, out, on_event) if begun else config, data, out, resume, world, on_event)
        )
        training = settled.config.training
        choice = device.choose(str(world.device), precision=training.precision)
        device.set_threads(int(training.threads))
        if choice.device.type == "cpu":
            device.keep_freed_memory()
        if training.reproducible:
            device.set_deterministic(choice.device)
        job = _Job(settled.config, open_packed(data), out, choice, settled.environment, world, on_event)
        if settled.is_finished:
            return world.from_main(lambda: _up_to_date(job, training.max_steps))
        rehearsal.let_go(choice.device)  # what was tried above would count as taken
        fitting = _fitting(job)
        config = fitting.tried(job.config)
        if finish_by is not None and not begun:
            config = fitting.budgeted(config, finish_by=finish_by)
        job = replace(job, config=config)
        with contextlib.ExitStack() as stack:
            world.from_main(lambda: stack.enter_context(run.locked(out)))
            return _fitted(job, settled.found, deadline=deadline)


ALL = "all sources"
MORE_TEXT = "train for fewer steps with `--set training.max_steps=...`, or prepare more text"


def _up_to_date(job: _Job, step: int) -> RunMetadata:
    job.on_event(Noted(f"`{job.out}` is up to date: finished at step {step}"))
    return _finish(job, step)


@dataclass(frozen=True)
class _Job:
    config: RunConfig
    packed: PackedData
    out: Path
    choice: Choice
    environment: dict[str, str]
    world: World
    on_event: Listener

    @property
    def data_sha256(self) -> str:
        return sha256(self.packed.folder / PACK_METADATA_NAME)

    @property
    def resume_command(self) -> str:
        return f"alm pretrain --resume {self.out / LAST_NAME}"


def _as_begun(config: RunConfig, out: Path, on_event: Listener) -> RunConfig:
    """`config` with what a budget chose for the run in `out` when it began."""
    own = run.read_config(out)
    on_event(Noted(f"`{out}` keeps its {own.training.max_steps:,} steps: a budget counts when a run begins"))
    return keeping_choices(config, own)


def _fitted(job: _Job, found: Found | None, *, deadline: float | None) -> RunMetadata:
    """Train; where memory is full, go on from the newest checkpoint with smaller micro-batches."""
    fitting = _fitting(job)
    while True:
        try:
            return _train(job, _state(job, found), found=found, deadline=deadline)
        except (RuntimeError, MemoryError) as error:
            if not device.is_out_of_memory(error):
                raise
            if job.world.size > 1:  # the others are in the middle of a step
                fitting.remember(job.config)
                raise fitting.out_of_memory(job.config) from error
            job = replace(job, config=fitting.halved(job.config))
        rehearsal.let_go(job.choice.device)  # here: the error had hold of everything
        found = newest(job.out, on_event=job.on_event)


def _fitting(job: _Job) -> Fitting:
    return Fitting(job.packed, job.choice, job.world, available_bytes(job.choice.device), job.on_event)


def _metadata(job: _Job) -> RunMetadata:
    packed = job.packed
    return RunMetadata(
        config=job.config.model_dump(mode="json"),
        inputs=(artifacts.record(packed.folder / PACK_METADATA_NAME, relative_to=job.out),),
        data=artifacts.relative(packed.folder, job.out),
        data_sha256=job.data_sha256,
        tokenizer_sha256=packed.metadata.tokenizer_sha256,
        parameters=count(job.config.model).total,
        environment=job.environment,
    )


def _state(job: _Job, found: Found | None) -> TrainState:
    """The state to train on from: new, or that of the checkpoint; later checkpoints and metrics are set aside."""
    try:
        state = fresh(job.config, job.choice, job.world, seq_len=job.packed.metadata.seq_len)
        if found is not None:
            # Ranks that need only a part of it have no room for all of it on their device.
            checkpoint = load_checkpoint(found.path, device="cpu" if job.world.size > 1 else job.choice.device)
            _check_same_bits(checkpoint, job)
            restore_(state, checkpoint, job.choice)
    except (RuntimeError, MemoryError) as error:
        if not device.is_out_of_memory(error):
            raise
        raise _fitting(job).out_of_memory(job.config, in_step=False) from error
    job.world.from_main(lambda: _make_ready(job, found))
    return state


def _make_ready(job: _Job, found: Found | None) -> None:
    """Make the run's folder what it has to be before the next step."""
    step = 0 if found is None else found.step
    if not run.exists(job.out):
        run.begin(job.out, job.config, _metadata(job), tokenizer=job.packed.tokenizer_path)
    write_text(job.out / run.CONFIG_NAME, write_yaml(job.config.model_dump(mode="json")))
    aside = set_aside_later(job.out, step=step)
    if aside is not None:
        job.on_event(Warned(f"checkpoints after step {step} are set aside in `{aside}`"))
    for name in (metrics.NAME, samples.NAME):
        later = metrics.cut(job.out, after=step, name=name, on_event=job.on_event)
        if aside is not None and later:
            write_text(aside / name, metrics.as_text(later))
    if found is not None:
        job.on_event(Resumed(job.out, step, job.config.training.max_steps))


def _check_same_bits(checkpoint: Checkpoint, job: _Job) -> None:
    before = {"ranks": "1", **checkpoint.environment}
    different = [
        f"{key} {before.get(key)} -> {value}"
        for key, value in job.environment.items()
        if key in ("torch", "device", "device_name", "cpu_capability", "precision", "threads", "ranks")
        and before.get(key) != value
    ]
    if different:
        job.on_event(Warned(f"the run goes on, but not bit for bit as it would have there: {', '.join(different)}"))


def _train(job: _Job, state: TrainState, *, found: Found | None, deadline: float | None) -> RunMetadata:
    tokenizer = Tokenizer.load(job.packed.tokenizer_path)
    streams = Streams(job.packed.split(TRAIN), job.packed.split(VALIDATION), tokenizer.bytes_per_id)
    _warn(job, streams)
    world = job.world
    world.from_main(lambda: _check_space(job, state, found))
    begun = state.step
    with (
        StopRequests(deadline=deadline, on_request=partial(job.on_event, _STOPPING)) as requests,
        _mirror(job, state) as mirror,
        _metrics(job, mirror) as rows,
        _writer(job) as writer,
        _SavedOnError(job, state, writer),
    ):
        agreement, stop_wanted = Agreement(requests, world), partial(_is_asked, requests)
        hooks = Hooks(
            stop_wanted=stop_wanted,
            should_stop=agreement,
            on_event=job.on_event,
            save=partial(_save, job, state, writer),
            settle=writer.settle,
            judge=_judge(job),
            sampler=_sampler(job, state, tokenizer, streams, mirror, should_stop=stop_wanted),
        )
        finished = train(state, job.config, streams, choice=job.choice, metrics=rows, hooks=hooks)
        writer.wait()
        rows.sync()
        if not finished:
            path = writer.save_now(_checkpoint(job, state), interrupted=True)
            raise _stopped(job, path, state.step, agreement.reason)
        # The disk was full: it may have room now.
        if state.step > begun and not world.from_main(lambda: writer.has_saved(state.step)):
            writer.save_now(_checkpoint(job, state))
    return world.from_main(lambda: _finish(job, state.step))


def _mirror(job: _Job, state: TrainState) -> contextlib.AbstractContextManager[Mirror]:
    """Who hands rows and samples on: the main rank, which alone has some."""
    if not job.world.is_main:
        return contextlib.nullcontext(Mirror(job.on_event))
    return mirrored(job.config, job.out, step=state.step, on_event=job.on_event)


def _metrics(job: _Job, mirror: Mirror) -> metrics.MetricsFile:
    if not job.world.is_main:
        return metrics.NoMetrics(job.out)
    return metrics.MetricsFile(job.out, on_event=job.on_event, mirror=mirror.row)


def _warn(job: _Job, streams: Streams) -> None:
    """Tell what the run will do that its owner may not mean."""
    warmup = warmup_steps(job.config.scheduler, max_steps=job.config.training.max_steps)
    if warmup >= job.config.training.max_steps:
        job.on_event(Warned(f"the run ends within its warm-up of {warmup} steps", "--set scheduler.warmup_steps=..."))
    for name, seen in epochs(job.config, planned(job.config, streams.train).mixture).items():
        if seen > MANY_EPOCHS:
            text = f"the text of `{name}`" if name != ALL else "the text"
            job.on_event(Warned(f"{text} is seen {seen:.1f} times: from the fifth on it teaches little", MORE_TEXT))
    if not streams.validation.sequences:
        job.on_event(Warned("no text is held out: this run has no validation", None))


def _check_space(job: _Job, state: TrainState, found: Found | None) -> None:
    """Room for the checkpoints to come."""
    training = job.config.training
    left = training.max_steps - state.step
    check_space(
        job.out,
        _retention(job),
        checkpoint_bytes=found.path.stat().st_size if found else checkpoint_bytes(job.config),
        saves=-(-left // training.checkpoint_interval),
        permanent=left // training.keep_every if training.keep_every else 0,
        on_event=job.on_event,
    )


def _retention(job: _Job) -> Retention:
    training = job.config.training
    return Retention(training.keep_last, training.keep_every, training.keep_best)


def _writer(job: _Job) -> CheckpointWriter:
    def on_saved(step: int, path: Path) -> None:
        job.on_event(CheckpointSaved(step, path))

    def on_full(error: AlmError) -> None:
        job.on_event(Warned(f"no checkpoint was saved: {error.message}; the run goes on and tries again", error.hint))

    kind = CheckpointWriter if job.world.is_main else NoWriter
    return kind(job.out, _retention(job), on_saved=on_saved, on_full=on_full)


def _is_asked(requests: StopRequests) -> bool:
    return requests.reason is not None


def _sampler(
    job: _Job,
    state: TrainState,
    tokenizer: Tokenizer,
    streams: Streams,
    mirror: Mirror,
    *,
    should_stop: Callable[[], bool],
) -> samples.Sampler | None:
    """Who writes samples: the main rank alone, if it has all of the model; the others wait."""
    if not job.world.is_main or not job.config.samples.prompts:
        return None
    if not state.sharing.is_whole_here:
        job.on_event(Warned("no samples are made during a run with `training.parallel: fsdp`", None))
        return None
    return samples.Sampler(
        state.model,
        tokenizer,
        job.config,
        held_out=streams.validation,
        run=job.out,
        should_stop=should_stop,
        on_event=mirror.hearing(job.on_event),
    )


def _judge(job: _Job) -> Judge | None:
    """Who says how the run goes: the main rank."""
    if not job.world.is_main:
        return None
    known = reference.matching(job.config, job.packed.metadata)
    return Judge(job.config.training.max_steps, partial(lr_factor, job.config), known)


def epochs(config: RunConfig, mixture: Mixture) -> dict[str, float]:
    """How often the run goes through each source; through everything, where sources are not weighted."""
    sequences = config.training.sequences_per_step * config.training.max_steps
    return {name or ALL: round(seen, 3) for name, seen in mixture.epochs(sequences).items()}


def _checkpoint(job: _Job, state: TrainState, *, alone: bool = False) -> Checkpoint:
    """`state` as it is; `AlmError` where it is nothing to go on from. Ranks call it together, or `alone`."""
    is_finite = state.is_finite()
    if not (is_finite if alone else not job.world.greatest(int(not is_finite))):
        raise AlmError(
            f"a weight is no longer finite at step {state.step}; checkpoints, if any, are from before that",
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


def _save(job: _Job, state: TrainState, writer: CheckpointWriter, bits_per_byte: float | None) -> None:
    writer.save(_checkpoint(job, state), bits_per_byte=bits_per_byte)


class _SavedOnError:
    """Saves the last whole step when its block ends in an error that is no stop.

    What cannot be gone on from is left alone: an update that broke off, weights that are not finite, steps that
    were skipped up to the end. So is a model that the main rank has only a part of: others may be gone.
    """

    def __init__(self, job: _Job, state: TrainState, writer: CheckpointWriter) -> None:
        self._job = job
        self._state = state
        self._writer = writer
        self._begun = state.step

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state = self._state
        if error is None or isinstance(error, StoppedError) or is_full(error) or state.step == self._begun:
            return
        state.optimizer.zero_grad(set_to_none=True)  # room, where memory was what failed
        if not (self._job.world.is_main and state.sharing.is_whole_here):
            return
        if not state.is_whole or state.skipped_in_row or not state.is_finite():
            return
        try:
            self._writer.save_now(_checkpoint(self._job, state, alone=True), interrupted=True)
        except AlmError as fault:
            self._job.on_event(Warned(f"step {state.step} was not saved: {fault.message}", fault.hint))


def _stopped(job: _Job, path: Path, step: int, reason: Reason | None) -> StoppedError:
    assert reason is not None, "the loop ends early only when it is asked to"
    return StoppedError(
        f"{reason.word} at step {step}; saved `{path}`",
        hint=f"run `{job.resume_command}` to go on",
        exit_code=reason.exit_code,
    )


def _finish(job: _Job, step: int) -> RunMetadata:
    """Record how the run ended, from its own metrics, so that a kill just before this loses nothing."""
    begun = run.read_metadata(job.out)
    if begun.result is not None and begun.result.step == step:
        return begun
    rows = metrics.read(job.out)
    scores = [row for row in rows if "bits_per_byte" in row]
    result = RunResult(
        step=step,
        training_tokens=step * job.config.training.sequences_per_step * job.packed.metadata.seq_len,
        validation_loss=scores[-1]["validation_loss"] if scores else None,
        bits_per_byte=scores[-1]["bits_per_byte"] if scores else None,
        bits_per_byte_margin=scores[-1].get("bits_per_byte_margin") if scores else None,
        seconds=round(metrics.training_seconds(rows), 3),
    )
    finished = begun.model_copy(update={"config": job.config.model_dump(mode="json"), "result": result})
    artifacts.write(job.out / run.METADATA_NAME, finished)
    return finished
