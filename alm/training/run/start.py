"""Preparations for the next step of a run: its state, its folder, warnings, and room on the disk."""

from __future__ import annotations

import torch

from alm import artifacts, files
from alm.artifacts import RunMetadata
from alm.checkpoint.format import Checkpoint
from alm.checkpoint.load import load_checkpoint
from alm.checkpoint.retain import repair, rewind
from alm.checkpoint.space import check_space
from alm.corpus.split import TRAIN, VALIDATION
from alm.events import Resumed, Warned
from alm.model.count import count
from alm.optim.schedules import warmup_steps
from alm.packing.shards import METADATA_NAME as PACK_METADATA_NAME
from alm.tokenizers import ends
from alm.tokenizers.chat_format import ChatFormat
from alm.training.batches import ALL, epochs, plan_batches
from alm.training.config import RunConfig
from alm.training.monitoring import metrics, samples
from alm.training.run import run_folder
from alm.training.run.initial import load_initial_
from alm.training.run.resolve import TrainingJob
from alm.training.sizing.memory import checkpoint_bytes
from alm.training.sizing.repeated_text import is_too_weak, regularisation
from alm.training.state import TrainState, restore_


def load_start_point_(job: TrainingJob, state: TrainState) -> None:
    """Load into a new `state` the checkpoint to continue from, or the initial weights of a new run, if it has any."""
    if job.found is not None:
        # On the CPU for several ranks: with fsdp a device may have room only for its part.
        device = "cpu" if job.world.size > 1 else job.choice.device
        checkpoint = load_checkpoint(job.found.path, device=device, step=job.found.step)
        _warn_of_other_bits(checkpoint, job)
        if job.config.lora.rank and job.initial is not None:
            load_initial_(state.model, job.initial)  # the checkpoint has the adapters alone
        restore_(state, checkpoint, job.choice)
        return
    # Nothing draws from this generator yet, but checkpoints hold its state, and PyTorch's default is a new one in each
    # process: without a seed, equal runs would have different checkpoints.
    torch.manual_seed(job.config.training.seed)
    if job.initial is not None:
        load_initial_(state.model, job.initial)


def prepare_run(job: TrainingJob, state: TrainState) -> None:
    """Bring the run's folder into its state before the next step, warn, and check the disk; ranks call it together."""
    job.world.from_main(lambda: _prepare_folder(job))
    _warn_of_settings(job)
    job.world.from_main(lambda: check_disk_space(job, state))


def _metadata(job: TrainingJob) -> RunMetadata:
    packed = job.packed
    initial = None if job.initial is None else job.initial.record(job.out)
    data = artifacts.record(packed.folder / PACK_METADATA_NAME, relative_to=job.out)
    return RunMetadata(
        config=job.config.model_dump(mode="json"),
        inputs=(data,) if initial is None else (data, initial),
        initial_weights=initial,
        data=artifacts.relative(packed.folder, job.out),
        data_sha256=job.data_sha256,
        tokenizer_sha256=packed.metadata.tokenizer_sha256,
        parameters=count(job.config.model).total,
        environment=job.environment,
        asked=dict(run_folder.replaced(job.requested, job.config)),
    )


def _prepare_folder(job: TrainingJob) -> None:
    """Write the files of a new run, or set later rows and checkpoints aside."""
    step = 0 if job.found is None else job.found.step
    if not run_folder.exists(job.out):
        run_folder.create(
            job.out, job.config, _metadata(job), tokenizer=job.packed.tokenizer_path, kept=_kept_files(job)
        )
    write_config(job)
    names = (metrics.NAME, samples.NAME)
    found_rows = {name: metrics.split(job.out, after=step, name=name, on_event=job.on_event) for name in names}
    aside = rewind(job.out, step=step, rows={name: pair for name, pair in found_rows.items() if pair is not None})
    if aside is not None:
        job.on_event(Warned(f"checkpoints after step {step} were moved to `{aside}`"))
    repair(job.out, job.retention)
    if job.found is not None:
        job.on_event(Resumed(job.out, step, job.config.training.max_steps))


def _kept_files(job: TrainingJob) -> dict[str, bytes]:
    """Return the chat template and the ends of texts of the model that the run starts from, by their names.

    Without a template, that of the turns it is trained on.
    """
    folder = None if job.initial is None else job.initial.path.parent
    paths = () if folder is None else (folder / run_folder.CHAT_TEMPLATE_NAME, folder / ends.NAME)
    found = {path.name: files.read_bytes(path) for path in paths if path.is_file()}
    conversations = job.packed.metadata.conversations
    template = None if conversations is None else ChatFormat.model_validate(conversations.chat).template()
    return found if template is None else {run_folder.CHAT_TEMPLATE_NAME: template.encode(), **found}


def write_config(job: TrainingJob) -> None:
    """Write the current configuration to the run's folder, and the requested values that differ from it."""
    run_folder.rewrite(job.out, job.config, run_folder.replaced(job.requested, job.config))


def _warn_of_other_bits(checkpoint: Checkpoint, job: TrainingJob) -> None:
    before = {"ranks": "1", **checkpoint.environment}
    different = [
        f"{key} {before.get(key)} -> {value}"
        for key, value in job.environment.items()
        if key in ("torch", "device", "device_name", "cpu_capability", "precision", "threads", "ranks")
        and before.get(key) != value
    ]
    if different:
        job.on_event(Warned(f"the run continues, but not bit for bit as before: {', '.join(different)}"))


def _warn_of_settings(job: TrainingJob) -> None:
    """Warn about settings with effects that the user may not expect."""
    warmup = warmup_steps(job.config.scheduler, max_steps=job.config.training.max_steps)
    if warmup >= job.config.training.max_steps:
        job.on_event(
            Warned(f"the run ends within its warm-up of {warmup} steps", "add `--set scheduler.warmup_steps=auto`")
        )
    warn_of_repeats(job)
    if not job.packed.metadata.sequences(VALIDATION):
        job.on_event(Warned("no text is held out: this run has no validation", None))
    if job.config.samples.prompts and job.world.size > 1 and job.config.training.parallel == "fsdp":
        job.on_event(Warned("no samples are made during a run with `training.parallel: fsdp`", None))


def warn_of_repeats(job: TrainingJob, *, before: RunConfig | None = None) -> None:
    """Warn about text that the run repeats so often that it would learn it by heart, unless that held `before` too."""
    if job.packed.metadata.conversations is not None:
        return  # the regularisation that is advised was measured for text
    mixture = plan_batches(job.config, job.packed.split(TRAIN)).mixture
    known = {} if before is None else epochs(before, mixture)
    for name, seen in epochs(job.config, mixture).items():
        if is_too_weak(job.config, seen) and not is_too_weak(job.config, known.get(name, 0.0)):
            text = f"the text of `{name}`" if name != ALL else "the text"
            flags = " ".join(f"--set {change}" for change in regularisation(seen).overrides)
            hint = f"start another run with `{flags}`, or leave out `--model`: what suits the text is then chosen"
            decay = job.config.optim.weight_decay  # type: ignore[attr-defined] # `is_too_weak` has compared it
            job.on_event(
                Warned(f"{text} is seen {seen:.1f} times: with weight decay {decay:g} it is learned by heart", hint)
            )


def check_disk_space(job: TrainingJob, state: TrainState) -> None:
    """Check that the disk has room for the checkpoints to come."""
    training = job.config.training
    left = training.max_steps - state.step
    check_space(
        job.out,
        job.retention,
        checkpoint_bytes=job.found.path.stat().st_size if job.found else checkpoint_bytes(job.config),
        saves=-(-left // training.checkpoint_interval) + job.keeps_best,
        permanent=left // training.keep_every if training.keep_every else 0,
        on_event=job.on_event,
    )
