"""Contents of a checkpoint, and names of its files.

`ckpt-stepXXXXXX.json` is written last: only a `ckpt-stepXXXXXX.pt` with a matching `.json` beside it is
complete. `ckpt-last.pt` is a hard link to the newest checkpoint, or a copy; `ckpt-best.pt` is one to the
checkpoint with the best score.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm import files

if TYPE_CHECKING:
    import torch

FORMAT = "alm-checkpoint"
# Files with `trained` have version 2: a reader that ignores the field would continue from other weights.
FORMAT_VERSION = 2
AVERAGE = "average."  # before the names of adapters in `Checkpoint.trained`
LAST_NAME = "ckpt-last.pt"
BEST_NAME = "ckpt-best.pt"
QUANTIZED_NAME = "quantized.safetensors"  # in the folder of a quantized model, which has no other checkpoint
LINK_NAMES = (LAST_NAME, BEST_NAME)  # names without metadata of their own
_NUMBERED = re.compile(r"ckpt-step(\d{6,})(-interrupt)?\.pt")

Values = dict[str, Any]  # Any: tensors and the JSON-like values that `weights_only` loading admits


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to continue as if it had never stopped.

    `step` counts finished optimizer updates, `samples_seen` the sequences trained on. `rng` has one
    entry per rank. `config` is the run's resolved configuration. `skipped_steps` counts the updates that
    were skipped because something was not finite, `skipped_in_row` those of them just before `step`.
    `loss_scaler` is set in fp16 (`LossScaler` in `alm/training/state.py`). In a run with `training.weight_average`,
    `model` is the average of the weights, and `trained` has the weights, which the run continues with. In a run with
    `lora.rank`, `model` has the adapters added in, and `trained` has only these (`alm.model.lora`), and their average
    with `average.` before the names.
    """

    step: int
    samples_seen: int
    model: dict[str, torch.Tensor]
    optimizer: Values
    rng: list[Values]
    config: Values
    environment: dict[str, str]
    tokenizer_sha256: str
    data_sha256: str
    skipped_steps: int = 0
    skipped_in_row: int = 0
    loss_scaler: dict[str, float] | None = None
    trained: dict[str, torch.Tensor] | None = None

    def values(self) -> Values:
        """Return a plain dictionary to write."""
        found = {"format": FORMAT, "format_version": FORMAT_VERSION, **vars(self)}
        if self.trained is None:
            del found["trained"]
            found["format_version"] = 1
        return found


def name(step: int, *, interrupted: bool = False) -> str:
    """Return the file name of the checkpoint of `step`."""
    return f"ckpt-step{step:06d}{'-interrupt' if interrupted else ''}.pt"


def step_of(path: Path) -> int | None:
    """Return the step in a numbered checkpoint's name, None for any other name."""
    match = _NUMBERED.fullmatch(path.name)
    return int(match[1]) if match else None


def is_interrupted(path: Path) -> bool:
    """Whether the checkpoint was saved early, by a stop or error: the work after its step may be missing."""
    match = _NUMBERED.fullmatch(path.name)
    return match is not None and match[2] is not None


def numbered(run: Path) -> list[Path]:
    """Return the numbered checkpoints of `run` that have metadata, newest first."""
    files.ensure_published(run)
    found = [path for path in run.glob("ckpt-step*.pt") if step_of(path) is not None]
    whole = [path for path in found if path.with_suffix(".json").is_file()]
    return sorted(whole, key=age, reverse=True)


def age(path: Path) -> tuple[int, str]:
    """Return the sort key of numbered checkpoints, oldest first."""
    return step_of(path) or 0, path.name
