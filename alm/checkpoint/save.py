"""Writing a checkpoint so that a kill at any instant leaves the one before in place."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import BinaryIO

import torch

from alm import artifacts, files
from alm.artifacts import CheckpointMetadata
from alm.checkpoint.format import LAST_NAME, Checkpoint, name


def save_checkpoint(checkpoint: Checkpoint, run: Path, *, interrupted: bool = False) -> Path:
    """Write `checkpoint` into `run` and point `ckpt-last.pt` at it; the path of the numbered file."""
    path = run / name(checkpoint.step, interrupted=interrupted)
    # A promise that describes the file about to be replaced must not outlive it.
    path.with_suffix(".json").unlink(missing_ok=True)
    with files.atomic(path) as file:
        torch.save(checkpoint.values(), file)
    metadata = CheckpointMetadata(
        file=path.name, step=checkpoint.step, bytes=path.stat().st_size, sha256=files.sha256(path)
    )
    artifacts.write(path.with_suffix(".json"), metadata)
    point_last_at(path)
    return path


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
