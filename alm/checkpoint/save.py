"""Writing a checkpoint so that a kill at any instant leaves the one before in place."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from alm import artifacts, files
from alm.artifacts import CheckpointMetadata
from alm.checkpoint.format import LAST_NAME, Checkpoint, name


def save_checkpoint(checkpoint: Checkpoint, run: Path, *, interrupted: bool = False) -> Path:
    """Write `checkpoint` into `run` and point `ckpt-last.pt` at it; the path of the numbered file."""
    path = run / name(checkpoint.step, interrupted=interrupted)
    with files.atomic(path) as file:
        _serialize(checkpoint, file)
    metadata = CheckpointMetadata(
        file=path.name, step=checkpoint.step, bytes=path.stat().st_size, sha256=files.sha256(path)
    )
    artifacts.write(path.with_suffix(".json"), metadata)
    point_last_at(path)
    return path


def _serialize(checkpoint: Checkpoint, file: BinaryIO) -> None:
    """torch.save, with the operating system's own error when a write fails: torch tells only of its position."""
    target = _Remembering(file)
    try:
        torch.save(checkpoint.values(), cast("BinaryIO", target))
    except RuntimeError as error:
        raise target.fault or error from error


class _Remembering(io.RawIOBase):
    """Writes through, and keeps the fault that a write ended in."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.fault: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # Any: what has a buffer
        try:
            return self._file.write(data)
        except OSError as fault:
            self.fault = fault
            raise


def point_last_at(path: Path) -> None:
    """Make `ckpt-last.pt` a hard link to `path`, or a copy where the file system has no links."""
    last = path.with_name(LAST_NAME)
    temporary = path.with_name(f".{LAST_NAME}.link-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    try:
        os.link(path, temporary)
        temporary.replace(last)
    except OSError:
        temporary.unlink(missing_ok=True)
        with files.atomic(last) as target, path.open("rb") as source:
            _copy(source, target)
    files.sync_folder(path.parent)


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    shutil.copyfileobj(source, target, 1 << 20)
