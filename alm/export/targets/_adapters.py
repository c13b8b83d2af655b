"""The adapters of a run with `lora.rank`: their tensors, their settings, and the model that they go with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from alm import artifacts
from alm.artifacts import ImportMetadata
from alm.checkpoint.format import AVERAGE
from alm.export.source import Source

if TYPE_CHECKING:
    from torch import Tensor

    from alm.training.config import LoraConfig


def refusals(source: Source) -> list[str]:
    """List why there is nothing to write: the run has no adapters."""
    if tensors(source):
        return []
    return ["the run has no adapters, which `alm finetune --lora 16` trains; `--to huggingface` writes weights"]


def tensors(source: Source) -> dict[str, Tensor]:
    """Return the adapters as they are used: their average if the run has one."""
    from alm.checkpoint.load import load_checkpoint
    from alm.model.weights import is_adapter

    found = load_checkpoint(source.path, step=source.step).trained or {}
    own = {name: tensor for name, tensor in found.items() if is_adapter(name) and not name.startswith(AVERAGE)}
    return {name: found.get(AVERAGE + name, tensor).contiguous() for name, tensor in own.items()}


def settings(source: Source) -> LoraConfig:
    """Return rank, alpha and targets."""
    from alm.checkpoint.load import load_checkpoint
    from alm.training.config import RunConfig

    return RunConfig.model_validate(load_checkpoint(source.path, with_optimizer=False).config).lora


def base_name(source: Source) -> str:
    """Return the name of the model that the run started from: on the hub if it is from there, else of its folder."""
    from alm.export.importing import METADATA_NAME
    from alm.training.run import run_folder

    initial = None if source.run is None else run_folder.read_metadata(source.run).initial_weights
    if source.run is None or initial is None:
        return ""
    folder = Path(os.path.normpath(source.run / initial.path)).parent
    if not (folder / METADATA_NAME).is_file():
        return folder.name
    found = artifacts.read(folder / METADATA_NAME, ImportMetadata, hint="import the model again")
    return folder.name if found.repository is None else found.repository.name
