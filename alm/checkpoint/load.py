"""Loading a checkpoint: checked by hash, and never running code from the file."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from alm import artifacts, files
from alm.artifacts import CheckpointMetadata
from alm.checkpoint.format import FORMAT, FORMAT_VERSION, LAST_NAME, Checkpoint, numbered
from alm.errors import AlmError, ArtifactError
from alm.events import Listener, Warned, ignore

_TRAIN_HINT = "run `alm pretrain` to make one"


@dataclass(frozen=True)
class Found:
    """A checkpoint file that its metadata vouches for."""

    path: Path
    step: int
    sha256: str


def verify(path: Path) -> Found:
    """`path` as a checkpoint whose bytes are those that were written; `ArtifactError` says what is wrong.

    `ckpt-last.pt` is checked against the metadata of the numbered checkpoints beside it.
    """
    if path.is_dir():
        raise ArtifactError(f"`{path}` is a folder, a checkpoint is needed", hint=f"name `{path / LAST_NAME}`")
    if not path.is_file():
        raise ArtifactError(f"`{path}` does not exist", hint=_elsewhere(path))
    digest = files.sha256(path)
    promises = [_promise(candidate) for candidate in _candidates(path)]
    for promise in promises:
        if promise.sha256 == digest:
            return Found(path, promise.step, digest)
    if not promises:
        raise ArtifactError(f"`{path}` has no metadata beside it, so it may be incomplete", hint=_elsewhere(path))
    raise ArtifactError(f"`{path}` is damaged: its hash is not the one that was written", hint=_elsewhere(path))


def has_promise(path: Path) -> bool:
    """Whether metadata beside `path` can vouch for it: a copy in another folder has none."""
    return bool(_candidates(path))


def _candidates(path: Path) -> list[Path]:
    own = path.with_suffix(".json")
    if path.name == LAST_NAME:
        return [other.with_suffix(".json") for other in numbered(path.parent)]
    return [own] if own.is_file() else []


def _promise(path: Path) -> CheckpointMetadata:
    return artifacts.read(path, CheckpointMetadata, hint=f"rm {path.with_suffix('')}.*")


def _elsewhere(path: Path) -> str:
    others = [other for other in numbered(path.parent) if other != path]
    return f"name another one: `{others[0]}`" if others else _TRAIN_HINT


def newest(run: Path, *, on_event: Listener = ignore) -> Found | None:
    """The newest checkpoint of `run` that is whole, None when there is none.

    A damaged one is told and skipped: the one before it is still good.
    """
    for path in numbered(run):
        try:
            return verify(path)
        except ArtifactError as error:
            on_event(Warned(f"{error.message}; falling back to the one before", None))
    return None


def load_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> Checkpoint:
    """The checkpoint in `path`, with tensors on `device`. Verify it first where its bytes matter."""
    if path.is_dir():
        raise ArtifactError(f"`{path}` is a folder, a checkpoint is needed", hint=f"name `{path / LAST_NAME}`")
    if not path.is_file():
        raise ArtifactError(f"`{path}` does not exist", hint=_elsewhere(path))
    try:
        values = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ArtifactError(f"`{path}` is no whole checkpoint: {reason}", hint=_elsewhere(path)) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ArtifactError(f"`{path}` is no checkpoint of alm", hint=_elsewhere(path))
    if values.get("format_version", 0) > FORMAT_VERSION:
        raise AlmError(
            f"`{path}` has format version {values['format_version']}, this alm reads {FORMAT_VERSION}",
            hint="run `pip install --upgrade a-lm`",
        )
    missing = [field.name for field in fields(Checkpoint) if field.name not in values]
    if missing:
        raise ArtifactError(f"`{path}` is no whole checkpoint: it has no `{missing[0]}`", hint=_elsewhere(path))
    return Checkpoint(**{field.name: values[field.name] for field in fields(Checkpoint)})
