"""Initial weights of a run from a checkpoint instead of random ones: `alm pretrain --init`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alm import artifacts
from alm.artifacts import SHORT_HASH, FileRecord
from alm.checkpoint.choose import checkpoint_at
from alm.checkpoint.format import Checkpoint
from alm.checkpoint.load import load_checkpoint, verify
from alm.errors import ArtifactError, ConfigError, quoted, shell
from alm.events import Listener, ignore
from alm.model.config import ModelConfig
from alm.model.transformer import Transformer
from alm.model.weights import shapes_of
from alm.packing.shards import PackedData
from alm.training.run import run_folder
from alm.training.state import load_weights_


@dataclass(frozen=True)
class InitialWeights:
    """The checkpoint that a run starts from, identified by the hash that it had then."""

    path: Path
    sha256: str

    def record(self, out: Path) -> FileRecord:
        """Return its record for the metadata of the run in `out`."""
        return artifacts.record(self.path, relative_to=out, sha256=self.sha256)


def initial_weights(
    init: Path | None, out: Path, packed: PackedData, model: ModelConfig, *, on_event: Listener = ignore
) -> InitialWeights | None:
    """Return the initial weights for `out`: of `init` for a new run, else the recorded ones; None for random ones.

    `init` is a checkpoint or the folder of a run. Raises what `check` does, and `ConfigError` when the run started from
    other weights.
    """
    init = None if init is None else checkpoint_at(init, on_event=on_event)
    if run_folder.exists(out):
        return _as_recorded(init, out)
    return None if init is None else check(init, packed, model)


def check(init: Path, packed: PackedData, model: ModelConfig) -> InitialWeights:
    """Return the weights of the checkpoint `init`, from which a run of `model` on `packed` can start.

    Raises `ArtifactError` when it is damaged or has another tokenizer than `packed`, and `ConfigError` when its weights
    do not fit `model`.
    """
    found, checkpoint = verify(init), load_checkpoint(init, with_optimizer=False)
    _check_tokenizer(init, checkpoint, packed)
    known = model.with_vocab_size(packed.metadata.vocab_size) if model.vocab_size == "auto" else model
    _check_shapes(init, checkpoint, known)
    return InitialWeights(init, found.sha256)


def _as_recorded(init: Path | None, out: Path) -> InitialWeights | None:
    recorded = run_folder.read_metadata(out).initial_weights
    if init is not None and (recorded is None or verify(init).sha256 != recorded.sha256):
        began = "with random weights" if recorded is None else f"from `{recorded.path}` {recorded.sha256[:SHORT_HASH]}"
        raise ConfigError(
            f"`{out}` started {began}, not from `{init}`",
            hint=f"start another run with `--out {quoted(run_folder.free_name(out))}`, or leave out `--init`",
        )
    if recorded is None:
        return None
    return InitialWeights(Path(os.path.normpath(out / recorded.path)), recorded.sha256)


def _check_tokenizer(init: Path, checkpoint: Checkpoint, packed: PackedData) -> None:
    of_weights, of_data = checkpoint.tokenizer_sha256, packed.metadata.tokenizer_sha256
    if of_weights != of_data:
        again = ("alm", "pack", "--tokenizer", init.with_name(run_folder.TOKENIZER_NAME))
        raise ArtifactError(
            f"`{init}` was trained with another tokenizer than the data in `{packed.folder}`\n"
            f"  of the checkpoint  {of_weights[:SHORT_HASH]}\n"
            f"  of the data        {of_data[:SHORT_HASH]}",
            hint=f"pack the text again: `{shell(*again, '--out', f'{packed.folder}-2')}`",
        )


def _check_shapes(init: Path, checkpoint: Checkpoint, model: ModelConfig) -> None:
    found, expected = {name: tuple(weight.shape) for name, weight in checkpoint.model.items()}, shapes_of(model)
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise ConfigError(
                f"the weights of `{init}` do not fit the model: `{name}` is {_shown(found.get(name))} there, and "
                f"{_shown(expected.get(name))} in the configuration",
                hint="leave out the `--set model...` that changes it",
            )


def _shown(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else str(list(shape))


def model_values(init: Path) -> dict[str, Any]:  # Any: JSON
    """Return the section `model` of the configuration that the checkpoint was saved with."""
    init = checkpoint_at(init)
    verify(init)
    values: dict[str, Any] = load_checkpoint(init, with_optimizer=False).config["model"]
    return values


def load_initial_(model: Transformer, start: InitialWeights) -> None:
    """Load the weights of `start` into `model`, of which this rank may have a part.

    Raises `ArtifactError` when the file is missing, damaged, or not the one that the run started from.
    """
    if verify(start.path).sha256 != start.sha256:
        raise ArtifactError(
            f"`{start.path}` is not the checkpoint that the run started from",
            hint=f"restore the one with the sha256 {start.sha256[:SHORT_HASH]}..., or start another run",
        )
    load_weights_(model, load_checkpoint(start.path, with_optimizer=False).model)
