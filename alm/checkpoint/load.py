"""Loads a checkpoint: checks its hash, reads it with bounds, compares it with its configuration, and runs no code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from alm import artifacts, available, files, formatting
from alm.artifacts import CheckpointMetadata
from alm.checkpoint.archive import Archive, opened, stored_tensors
from alm.checkpoint.format import (
    FORMAT,
    FORMAT_VERSION,
    LAST_NAME,
    LINK_NAMES,
    QUANTIZED_NAME,
    Checkpoint,
    Values,
    age,
    numbered,
    step_of,
)
from alm.checkpoint.pickled import StoredTensor, UnreadableError
from alm.checkpoint.schema import check
from alm.errors import AlmError, ArtifactError, shell
from alm.events import Listener, Warned, ignore

_SUFFIX, _METADATA_SUFFIX = ".pt", ".json"
_ATTEMPTS = 5
_TRAIN_HINT = "run `alm pretrain` to make one"


@dataclass(frozen=True)
class Found:
    """A checkpoint file that matches its metadata."""

    path: Path
    step: int
    sha256: str


def verify(path: Path) -> Found:
    """Return the checkpoint at `path` if it has the bytes that were written; raise `ArtifactError` if not.

    `ckpt-last.pt` and `ckpt-best.pt` are checked against the metadata of the numbered checkpoints beside them.
    """
    _check_is_file(path)
    known = list(_metadata_of(path))
    # Hash only if a size matches: a truncated file is refused at once.
    size = path.stat().st_size
    digest = files.sha256(path) if any(each.bytes == size for each in known) else None
    for each in known:
        if digest is not None and each.sha256 == digest:
            return Found(path, each.step, digest)
    if not known:
        raise ArtifactError(f"`{path}` has no metadata beside it, so it may be incomplete", hint=_elsewhere(path))
    raise ArtifactError(f"`{path}` is damaged: its hash differs from the recorded one", hint=_elsewhere(path))


def _check_is_file(path: Path) -> None:
    files.ensure_published(path.parent)
    if path.is_dir():
        raise ArtifactError(f"`{path}` is a folder, not a checkpoint", hint=f"name `{path / LAST_NAME}`")
    if not path.is_file():
        raise ArtifactError(f"`{path}` does not exist", hint=_elsewhere(path))
    if path.name == QUANTIZED_NAME:
        raise ArtifactError(
            f"`{path}` holds rounded weights, which cannot be trained or rounded again",
            hint=f"name the checkpoint that they were made from: `{shell('alm', 'info', path.parent)}` shows it",
        )
    if path.suffix == _METADATA_SUFFIX:
        raise ArtifactError(f"`{path}` is metadata, not a checkpoint", hint=_elsewhere(path))


def has_metadata(path: Path) -> bool:
    """Whether there is metadata beside `path` to verify it with: a copy in another folder has none."""
    return bool(_candidates(path))


def _candidates(path: Path) -> list[Path]:
    own = path.with_suffix(".json")
    if path.name in LINK_NAMES:
        return [other.with_suffix(".json") for other in numbered(path.parent)]
    return [own] if own.is_file() else []


def _metadata_of(path: Path) -> Iterator[CheckpointMetadata]:
    for candidate in _candidates(path):
        try:
            yield read_metadata(candidate)
        except ArtifactError:
            if path.name not in LINK_NAMES:  # for a link, any one that matches is enough
                raise


def read_metadata(path: Path) -> CheckpointMetadata:
    """Return the metadata in `path`; raise `ArtifactError` when it was changed, or describes another file."""
    hint = _elsewhere(path.with_suffix(_SUFFIX))
    found = artifacts.read(path, CheckpointMetadata, hint=hint)
    if found.file != path.with_suffix(_SUFFIX).name:
        raise ArtifactError(f"`{path}` is about `{found.file}`, not about the checkpoint beside it", hint=hint)
    if step_of(path.with_suffix(_SUFFIX)) not in (None, found.step):
        raise ArtifactError(f"`{path}` says `step` is {found.step:,}, but its name says another step", hint=hint)
    return found


def _elsewhere(path: Path) -> str:
    others = [other for other in numbered(path.parent) if other != path]
    return f"name another one: `{others[0]}`" if others else _TRAIN_HINT


def newest(run: Path, *, on_event: Listener = ignore) -> Found | None:
    """Return the newest complete checkpoint of `run`, None if there is none.

    A damaged one is skipped with a warning: the one before it is still good.
    """
    files.ensure_published(run)
    known = sorted((path for path in run.glob("ckpt-step*.pt") if step_of(path) is not None), key=age, reverse=True)
    for path in known:
        try:
            return verify(path)
        except (AlmError, OSError) as error:
            reason = error.message if isinstance(error, AlmError) else f"`{path}` cannot be read: {error.strerror}"
            on_event(Warned(f"{reason}; falling back to the one before", None))
    if known:
        on_event(Warned(f"no checkpoint in `{run}` is complete: it starts again at step 0", None))
    return None


def open_checkpoint(
    path: Path, *, device: torch.device | str = "cpu", with_optimizer: bool = True, on_event: Listener = ignore
) -> tuple[Found | None, Checkpoint]:
    """Return the verified `Found` and the checkpoint in `path`; a copy without metadata gets None and a warning.

    `ckpt-last.pt` of a run that is training may become another file at any time: then it is read again.
    """
    for attempt in range(_ATTEMPTS):
        before = _identity(path)
        try:
            found = None
            if path.is_file() and not has_metadata(path):
                on_event(Warned(f"`{path}` has no metadata beside it, so it cannot be verified"))
            else:
                found = verify(path)
            step = None if found is None else found.step
            return found, load_checkpoint(path, device=device, step=step, with_optimizer=with_optimizer)
        except ArtifactError:
            if path.name not in LINK_NAMES or attempt == _ATTEMPTS - 1 or _identity(path) == before:
                raise
    raise AssertionError("the last attempt returns or raises")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return values that distinguish the file that now has this name from another one."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def load_checkpoint(
    path: Path, *, device: torch.device | str = "cpu", step: int | None = None, with_optimizer: bool = True
) -> Checkpoint:
    """Return the checkpoint in `path`, with tensors on `device`. Verify it first if its bytes matter.

    The state of its optimizer, often most of the file, is empty without `with_optimizer`, and `trained` is None.

    Raises `ArtifactError` unless its fields have their types and its weights match its configuration, which is checked
    before a tensor is allocated, and its step matches its name, the metadata beside it, and the expected `step`.
    """
    _check_is_file(path)
    try:
        with opened(path) as archive:
            values = archive.values()
            if not isinstance(values, dict) or values.get("format") != FORMAT:
                raise ArtifactError(f"`{path}` is not a checkpoint of alm", hint=_elsewhere(path))
            _check_version(path, values.get("format_version"))
            check(values)
            for expected in (step, step_of(path), _step_beside(path)):
                if expected not in (None, values["step"]):
                    raise UnreadableError(f"its step is {values['step']:,}, but {expected:,} was expected")
            if not with_optimizer:
                values["optimizer"] = {}
                values["trained"] = None
            _check_room(path, values, torch.device(device))
            names = [field.name for field in fields(Checkpoint) if field.name in values]
            return Checkpoint(**{name: _with_tensors(values[name], archive, device) for name in names})
    except UnreadableError as error:
        raise ArtifactError(f"`{path}` is not a complete checkpoint: {error}", hint=_elsewhere(path)) from error
    except OSError as error:
        raise ArtifactError(f"`{path}` cannot be read: {error.strerror or error}", hint=_elsewhere(path)) from error


def _check_version(path: Path, version: object) -> None:
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise AlmError(
            f"`{path}` has format version {version}, this alm reads {FORMAT_VERSION}",
            hint="run `pip install --upgrade a-lm`",
        )


def _step_beside(path: Path) -> int | None:
    beside = path.with_suffix(".json")
    return read_metadata(beside).step if beside.is_file() else None


def _check_room(path: Path, values: Values, device: torch.device) -> None:
    """Refuse tensors that do not fit in memory: a sparse file may be long and take no room on its disk."""
    needed = sum(tensor.nbytes for tensor in stored_tensors(values))
    room = available.memory_bytes() if device.type == "cpu" else None
    if room is not None and needed > room:
        raise AlmError(
            f"`{path}` holds tensors of {formatting.size(needed)}, and {formatting.size(room)} of memory are free",
            hint="close other programs, or read it on a machine with more memory",
        )


def _with_tensors(value: Any, archive: Archive, device: torch.device | str) -> Any:  # Any: what a checkpoint holds
    """Return `value` with its tensors read from `archive`."""
    if isinstance(value, StoredTensor):
        return archive.tensor(value).to(device)
    if isinstance(value, dict):
        return {key: _with_tensors(item, archive, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_with_tensors(item, archive, device) for item in value)
    return value


def in_fp32_(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert `weights` one at a time, so that they are in memory once, and return them."""
    for name, tensor in weights.items():
        weights[name] = tensor.float()
    return weights
