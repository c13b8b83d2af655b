"""Decisions before a run starts or resumes: its configuration, and the checkpoint to continue from.

With several ranks the main rank decides for all, as only it is sure to see the current files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from alm import artifacts, device
from alm.artifacts import RunMetadata
from alm.checkpoint.format import is_interrupted
from alm.checkpoint.load import Found, newest, verify
from alm.corpus.split import VALIDATION
from alm.device import Choice
from alm.distributed import World
from alm.errors import ArtifactError, ConfigError, quoted
from alm.events import Listener, Noted
from alm.files import sha256
from alm.packing.shards import METADATA_NAME as PACK_METADATA_NAME
from alm.packing.shards import PackedData, open_packed, pack_command
from alm.training.config import RunConfig
from alm.training.monitoring import metrics, trackers
from alm.training.run import ranks, run_folder
from alm.training.run.asked import Asked, asked_of, kept, still_asked
from alm.training.sizing import compiling, oom_cache, precision

Resume = Path | Literal["auto", "never"]


@dataclass(frozen=True)
class Settled:
    """The decisions. `asked` are the requested settings; `found` is None for a new run."""

    config: RunConfig
    asked: Asked
    environment: dict[str, str]
    found: Found | None
    is_finished: bool


def settle(
    config: RunConfig,
    data: Path,
    out: Path,
    resume: Resume,
    world: World,
    on_event: Listener,
    *,
    has_budget: bool = False,
) -> Settled:
    """Decide how the run in `out` starts or resumes. Raises `AlmError` if the arguments do not fit it."""
    packed = open_packed(data, is_hashed=True)
    _refuse_or_pass(out, resume)
    begun, asked = run_folder.exists(out), asked_of(config)
    if begun:
        config, asked = _as_decided(config, out, on_event, has_budget=has_budget)
    config = oom_cache.capped(
        config,
        world.device,
        seq_len=packed.metadata.seq_len,
        vocab_size=packed.metadata.vocab_size,
        ranks=world.size,
        on_event=on_event,
    )
    if begun:
        config = run_folder.resumed_config(out, config, on_event=on_event)
    trackers.check(config.logging.sinks)
    config = with_data(config, packed)
    choice = precision.settled(config, str(world.device), seq_len=packed.metadata.seq_len, on_event=on_event)
    compile_ = compiling.settled(config, choice, seq_len=packed.metadata.seq_len, on_event=on_event)
    config = _resolved(config, choice, world, compile_=compile_)
    ranks.check(config, world)
    device.set_threads(int(config.training.threads))
    environment = {**device.environment(choice), "ranks": ranks.label(config, world)}
    if not begun:
        return Settled(config, asked, environment, None, is_finished=False)
    found = _resume_point(out, resume, on_event)
    _check_lineage(run_folder.read_metadata(out), packed, out)
    return Settled(config, asked, environment, found, _is_finished(found, config, packed, out))


def _as_decided(config: RunConfig, out: Path, on_event: Listener, *, has_budget: bool) -> tuple[RunConfig, Asked]:
    """Return `config` with the settings fixed when the run started, which is reported, and those asked for now."""
    own, asked = run_folder.read_config(out), run_folder.read_metadata(out).asked
    if has_budget:
        steps = f"{own.training.max_steps:,} steps"
        on_event(Noted(f"`{out}` keeps its {steps} and related settings: a budget only applies when a run starts"))
    found = kept(config, own, asked, has_budget=has_budget)
    if found.training.micro_batch_size != config.training.micro_batch_size:
        on_event(
            Noted(
                f"micro-batches stay at {found.training.micro_batch_size} sequences, as "
                f"{config.training.micro_batch_size} did not fit: the result is bit for bit that of an unstopped run"
            )
        )
    return found, still_asked(found, own, asked)


def _refuse_or_pass(out: Path, resume: Resume) -> None:
    if resume == "never" and run_folder.exists(out):
        raise ConfigError(
            f"`{out}` already holds a run", hint=f"name another folder: `--out {quoted(run_folder.free_name(out))}`"
        )
    if isinstance(resume, Path):
        _refuse_stranger(out, resume)


def _refuse_stranger(out: Path, checkpoint: Path) -> None:
    """Refuse a checkpoint outside its own run: in another folder, metrics and weights would not belong together."""
    if not checkpoint.is_file():
        verify(checkpoint)  # says whether it is missing or a folder, and what to name instead
    if not run_folder.exists(out):
        inside = run_folder.exists(out.parent)  # one that was set aside
        hint = (
            f"move it and its .json into `{out.parent}` first" if inside else "name a checkpoint inside a run's folder"
        )
        raise ConfigError(f"`{out}` holds no run to resume: there is no `{run_folder.METADATA_NAME}`", hint=hint)
    if checkpoint.resolve().parent != out.resolve():
        raise ConfigError(
            f"`{checkpoint}` is not a checkpoint of the run in `{out}`",
            hint=f"resume it in its own folder: `--resume {quoted(checkpoint)} --out {quoted(checkpoint.parent)}`",
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


def _resolved(config: RunConfig, choice: Choice, world: World, *, compile_: bool) -> RunConfig:
    """Return the configuration with every `auto` replaced by the chosen value, so that a resume uses the same."""
    training = config.training
    chosen = training.model_copy(
        update={
            "precision": choice.precision,
            "threads": torch.get_num_threads() if training.threads == "auto" else training.threads,
            "compile": compile_,
            "parallel": ranks.chosen(config, choice, world),
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


def _resume_point(out: Path, resume: Resume, on_event: Listener) -> Found | None:
    if isinstance(resume, Path):
        return verify(resume)
    return newest(out, on_event=on_event)


def _is_finished(found: Found | None, config: RunConfig, packed: PackedData, out: Path) -> bool:
    """Whether nothing is left to do, not even the work after the last step, which a stop or an error may cut short."""
    if found is None or found.step < config.training.max_steps or is_interrupted(found.path):
        return False
    return _is_scored(packed, out, found.step)


def _is_scored(packed: PackedData, out: Path, step: int) -> bool:
    if not packed.metadata.sequences(VALIDATION):
        return True
    return any(row["step"] == step and "bits_per_byte" in row for row in metrics.read(out))
