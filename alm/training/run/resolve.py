"""Decisions before a run starts or resumes: its configuration, and the checkpoint to continue from."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from alm import artifacts, device
from alm.artifacts import RunMetadata
from alm.checkpoint.format import LAST_NAME, Checkpoint, is_interrupted
from alm.checkpoint.load import Found, newest, verify
from alm.checkpoint.retain import Retention
from alm.corpus.split import TRAIN, VALIDATION
from alm.device import Choice, available_bytes
from alm.distributed import World
from alm.errors import AlmError, ArtifactError, ConfigError, quoted, shell
from alm.events import Listener, Noted
from alm.files import sha256
from alm.packing.shards import METADATA_NAME as PACK_METADATA_NAME
from alm.packing.shards import PackedData, open_packed, pack_command
from alm.training.batches import plan_batches, repeats
from alm.training.config import RunConfig, TrainingConfig
from alm.training.monitoring import metrics, trackers
from alm.training.monitoring.verdict import why_worse
from alm.training.run import ranks, run_folder
from alm.training.run.fit import DeviceLimits
from alm.training.run.initial import InitialWeights, initial_weights
from alm.training.run.run_folder import Requested
from alm.training.sizing import autotune, oom_cache
from alm.training.state import TrainState, snapshot

Resume = Path | Literal["auto", "never"]


@dataclass(frozen=True)
class Resolved:
    """The decisions of the main rank. `found` is the checkpoint to continue from; None starts at step 0.

    `requested` has the values that the command requests of settings that the machine may replace. `stopped_before` is
    the step at which the run stopped by itself, before it was asked for more steps.
    """

    config: RunConfig
    requested: Requested
    environment: dict[str, str]
    is_new: bool
    found: Found | None = None
    is_finished: bool = False
    stopped_before: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Resolved):
    """A run on this rank: the decisions, its data, folder and device."""

    packed: PackedData
    out: Path
    choice: Choice
    world: World
    on_event: Listener
    initial: InitialWeights | None = None  # None: random ones

    @property
    def data_sha256(self) -> str:
        """Hash of the data, as in the run's checkpoints."""
        return sha256(self.packed.folder / PACK_METADATA_NAME)

    @property
    def resume_command(self) -> str:
        """Command to paste after a stop."""
        return shell("alm", "pretrain", "--resume", self.out / LAST_NAME)

    @property
    def retention(self) -> Retention:
        """Rule for the checkpoints to keep."""
        training = self.config.training
        return Retention(training.keep_last, training.keep_every, self.keeps_best)

    @property
    def keeps_best(self) -> bool:
        """Whether the best checkpoint is kept."""
        return self.config.training.keeps_best(repeats=self._repeats)

    @property
    def stops_when_worse(self) -> bool:
        """Whether the run stops by itself when it can only get worse."""
        return self.config.training.stops_when_worse(repeats=self._repeats)

    @functools.cached_property
    def _repeats(self) -> bool:
        return _repeats(self.config, self.packed, self.found)

    def limits(self) -> DeviceLimits:
        """Return the limits of the device, with the memory that is free now."""
        return DeviceLimits(self.packed, self.choice, self.world, available_bytes(self.choice.device), self.on_event)

    def checkpoint(self, state: TrainState, *, alone: bool = False) -> Checkpoint:
        """Return `state` as a checkpoint; `AlmError` if it is not finite. Ranks call it together, or one `alone`."""
        is_finite = state.is_finite()
        if not (is_finite if alone else not self.world.greatest(int(not is_finite))):
            raise AlmError(
                f"a weight is no longer finite at step {state.step}; checkpoints, if any, are from earlier steps",
                hint="lower the learning rate: start another run with `--set optim.lr=...`",
            )
        return snapshot(
            state,
            self.config,
            environment=self.environment,
            tokenizer_sha256=self.packed.metadata.tokenizer_sha256,
            data_sha256=self.data_sha256,
            alone=alone,
        )


def resolve(
    config: RunConfig,
    *,
    data: Path,
    out: Path,
    init: Path | None,
    resume: Resume,
    has_budget: bool,
    world: World,
    on_event: Listener,
) -> TrainingJob:
    """Decide how the run in `out` starts or resumes, and set up this rank's device. Ranks call it together.

    The main rank decides for all, as only it is sure to see the current files. Raises `AlmError` if the arguments do
    not fit the run.
    """
    initial = world.from_main(lambda: initial_weights(init, out, open_packed(data), config.model, on_event=on_event))
    resolved = world.from_main(lambda: _decide(config, data, out, resume, world, on_event, has_budget=has_budget))
    choice = _set_up_device(resolved.config.training, world)
    return TrainingJob(
        **vars(resolved),
        packed=open_packed(data),
        out=out,
        choice=choice,
        world=world,
        on_event=on_event,
        initial=initial,
    )


def _set_up_device(training: TrainingConfig, world: World) -> Choice:
    choice = device.choose(str(world.device), precision=training.precision)
    device.set_threads(int(training.threads))
    if choice.device.type == "cpu":
        device.keep_freed_memory()
    if training.reproducible:
        device.set_deterministic(choice.device)
    return choice


def _decide(
    config: RunConfig, data: Path, out: Path, resume: Resume, world: World, on_event: Listener, *, has_budget: bool
) -> Resolved:
    packed = open_packed(data, is_hashed=True)
    seq_len = packed.metadata.seq_len
    _check_resume(out, resume)
    is_new, requested = not run_folder.exists(out), run_folder.requested_by(config)
    if not is_new:
        config, requested = _as_requested_before(config, out, on_event, has_budget=has_budget)
    config = oom_cache.limit_micro_batch(
        config,
        world.device,
        seq_len=seq_len,
        vocab_size=packed.metadata.vocab_size,
        ranks=world.size,
        on_event=on_event,
    )
    if not is_new:
        config = run_folder.resumed_config(out, config, on_event=on_event)
    trackers.check(config.logging.sinks)
    config = with_data(config, packed)
    choice = autotune.choose_precision(config, str(world.device), seq_len=seq_len, on_event=on_event)
    compile_ = autotune.choose_compile(config, choice, seq_len=seq_len, on_event=on_event)
    config = _without_auto(config, choice, world, compile_=compile_)
    ranks.check(config, world)
    device.set_threads(int(config.training.threads))
    environment = {**device.environment(choice), "ranks": ranks.label(config, world)}
    if is_new:
        return Resolved(config, requested, environment, is_new=True)
    found = verify(resume) if isinstance(resume, Path) else newest(out, on_event=on_event)
    metadata = run_folder.read_metadata(out)
    _check_lineage(metadata, packed, out)
    before = _stopped_before(metadata, config)
    is_finished = _is_finished(found, config, packed, out, stopped_before=before)
    return Resolved(
        config,
        requested,
        environment,
        is_new=False,
        found=found,
        is_finished=is_finished,
        stopped_before=before,
    )


def _as_requested_before(
    config: RunConfig, out: Path, on_event: Listener, *, has_budget: bool
) -> tuple[RunConfig, Requested]:
    """Return `config` with the values that the machine chose in the run so far, and the values requested now."""
    stored = run_folder.read_config(out)
    if has_budget:
        steps = f"{stored.training.max_steps:,} steps"
        on_event(Noted(f"`{out}` keeps its {steps} and related settings: a budget only applies when a run starts"))
    found, requested = run_folder.reconcile(config, stored, run_folder.read_metadata(out).asked, has_budget=has_budget)
    if found.training.micro_batch_size != config.training.micro_batch_size:
        on_event(
            Noted(
                f"micro-batches stay at {found.training.micro_batch_size} sequences, as "
                f"{config.training.micro_batch_size} did not fit: the result is bit for bit that of an unstopped run"
            )
        )
    return found, requested


def _check_resume(out: Path, resume: Resume) -> None:
    """Refuse a run that exists with "never", and a checkpoint outside its own run: in another folder, metrics and
    weights would not belong together.
    """
    is_run = run_folder.exists(out)
    if resume == "never" and is_run:
        raise ConfigError(
            f"`{out}` already holds a run", hint=f"name another folder: `--out {quoted(run_folder.free_name(out))}`"
        )
    if not isinstance(resume, Path):
        return
    if not resume.is_file():
        verify(resume)  # says whether it is missing or a folder, and what to name instead
    if not is_run:
        inside = run_folder.exists(out.parent)  # one that was set aside
        hint = (
            f"move it and its .json into `{out.parent}` first" if inside else "name a checkpoint inside a run's folder"
        )
        raise ConfigError(f"`{out}` holds no run to resume: there is no `{run_folder.METADATA_NAME}`", hint=hint)
    if resume.resolve().parent != out.resolve():
        raise ConfigError(
            f"`{resume}` is not a checkpoint of the run in `{out}`",
            hint=f"resume it in its own folder: `--resume {quoted(resume)} --out {quoted(resume.parent)}`",
        )


def with_data(config: RunConfig, packed: PackedData) -> RunConfig:
    """Return the configuration with the data's vocabulary; raise `ConfigError` if the data does not fit the model."""
    data, model = packed.metadata, config.model
    if data.seq_len > model.max_position_embeddings:
        raise ConfigError(
            f"sequences of {data.seq_len:,} tokens do not fit `model.max_position_embeddings` "
            f"{model.max_position_embeddings:,}",
            hint=f"`--set model.max_position_embeddings={data.seq_len}`, or `{pack_command(packed.folder)} "
            f"--seq-len {model.max_position_embeddings} --force`",
        )
    if model.vocab_size == "auto":
        return config.model_copy(update={"model": model.with_vocab_size(data.vocab_size)})
    if model.vocab_size < data.vocab_size:
        raise ConfigError(
            f"`model.vocab_size` {model.vocab_size:,} is less than the {data.vocab_size:,} tokens of the tokenizer",
            hint="leave it `auto`: `--set model.vocab_size=auto`",
        )
    return config


def _without_auto(config: RunConfig, choice: Choice, world: World, *, compile_: bool) -> RunConfig:
    """Return the configuration with every `auto` replaced by the chosen value, so that a resume uses the same."""
    training = config.training
    chosen = training.model_copy(
        update={
            "precision": choice.precision,
            "threads": torch.get_num_threads() if training.threads == "auto" else training.threads,
            "compile": compile_,
            "parallel": ranks.choose_parallel(config, choice, world),
        }
    )
    return config.model_copy(update={"training": chosen})


def _check_lineage(metadata: RunMetadata, packed: PackedData, out: Path) -> None:
    for what, before, now in (
        ("tokenizer", metadata.tokenizer_sha256, packed.metadata.tokenizer_sha256),
        ("data", metadata.data_sha256, sha256(packed.folder / PACK_METADATA_NAME)),
    ):
        if before != now:
            raise ArtifactError(
                f"`{out}` was started on other data than `{packed.folder}`\n"
                f"  {what} of the run   {before[: artifacts.SHORT_HASH]}\n"
                f"  {what} of the data  {now[: artifacts.SHORT_HASH]}",
                hint=f"start another run with `--out {quoted(run_folder.free_name(out))}`",
            )


def _repeats(config: RunConfig, packed: PackedData, found: Found | None) -> bool:
    mixture = plan_batches(config, packed.split(TRAIN)).mixture
    return repeats(config, mixture, step=0 if found is None else found.step)


def _stopped_before(metadata: RunMetadata, config: RunConfig) -> int:
    """Return the step at which the run stopped by itself if it is now asked for more steps than then, else 0."""
    result, before = metadata.result, dict(artifacts.flat(metadata.config)).get("training.max_steps")
    if result is None or result.stopped is None or not isinstance(before, int):
        return 0
    return result.step if config.training.max_steps > before else 0


def _is_finished(found: Found | None, config: RunConfig, packed: PackedData, out: Path, *, stopped_before: int) -> bool:
    """Whether nothing is left to do, not even the work after the last step, which a stop or an error may cut short."""
    if found is None or is_interrupted(found.path):
        return False
    if found.step < config.training.max_steps:
        if not config.training.stops_when_worse(repeats=_repeats(config, packed, found)):
            return False
        return why_worse(out, found.step, after=stopped_before) is not None
    if not packed.metadata.sequences(VALIDATION):
        return True
    return any(row["step"] == found.step and "bits_per_byte" in row for row in metrics.read(out))
