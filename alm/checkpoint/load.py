"""Loading a checkpoint: checked by hash, and never running code from the file."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import torch

from alm import artifacts, files
from alm.artifacts import CheckpointMetadata
from alm.checkpoint.format import FORMAT, FORMAT_VERSION, LAST_NAME, LINK_NAMES, Checkpoint, age, numbered, step_of
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

    `ckpt-last.pt` and `ckpt-best.pt` are checked against the metadata of the numbered checkpoints beside them.
    """
    if path.is_dir():
        raise ArtifactError(f"`{path}` is a folder, a checkpoint is needed", hint=f"name `{path / LAST_NAME}`")
    if not path.is_file():
        raise ArtifactError(f"`{path}` does not exist", hint=_elsewhere(path))
    digest = files.sha256(path)
    promises = list(_promises(path))
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
    if path.name in LINK_NAMES:
        return [other.with_suffix(".json") for other in numbered(path.parent)]
    return [own] if own.is_file() else []


def _promises(path: Path) -> Iterator[CheckpointMetadata]:
    for candidate in _candidates(path):
        try:
            yield promise(candidate)
        except ArtifactError:
            if path.name not in LINK_NAMES:  # a link is vouched for by any one of them
                raise


def promise(path: Path) -> CheckpointMetadata:
    """The metadata in `path`; `ArtifactError` when it is no longer what was written."""
    return artifacts.read(path, CheckpointMetadata, hint=f"rm {path.with_suffix('')}.*")


def _elsewhere(path: Path) -> str:
    others = [other for other in numbered(path.parent) if other != path]
    return f"name another one: `{others[0]}`" if others else _TRAIN_HINT


def newest(run: Path, *, on_event: Listener = ignore) -> Found | None:
    """The newest checkpoint of `run` that is whole, None when there is none.

    A damaged one is told and skipped: the one before it is still good.
    """
    known = sorted((path for path in run.glob("ckpt-step*.pt") if step_of(path) is not None), key=age, reverse=True)
    for path in known:
        try:
            return verify(path)
        except (AlmError, OSError) as error:
            reason = error.message if isinstance(error, AlmError) else f"`{path}` cannot be read: {error.strerror}"
            on_event(Warned(f"{reason}; falling back to the one before", None))
    if known:
        on_event(Warned(f"no checkpoint in `{run}` is whole: it begins again at step 0", None))
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
    known = [field.name for field in fields(Checkpoint) if field.name in values]
    missing = [f.name for f in fields(Checkpoint) if f.name not in values and f.default is MISSING]
    if missing:
        raise ArtifactError(f"`{path}` is no whole checkpoint: it has no `{missing[0]}`", hint=_elsewhere(path))
    return Checkpoint(**{name: values[name] for name in known})
