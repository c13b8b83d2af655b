"""Writing a checkpoint so that a kill at any instant leaves the one before in place."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from alm import artifacts, files
from alm.artifacts import CheckpointMetadata
from alm.checkpoint.format import LAST_NAME, Checkpoint, name

_NEVER: Callable[[], bool] = bool


def save_checkpoint(
    checkpoint: Checkpoint,
    run: Path,
    *,
    interrupted: bool = False,
    bits_per_byte: float | None = None,
    is_cancelled: Callable[[], bool] = _NEVER,
) -> Path:
    """Write `checkpoint` into `run` and point `ckpt-last.pt` at it; the path of the numbered file.

    Raises `AlmError` when it cannot be written, or soon after `is_cancelled` says so; nothing half-written stays.
    """
    path = run / name(checkpoint.step, interrupted=interrupted)
    with files.atomic(path) as file:
        written = _Hashing(file, is_cancelled)
        _serialize(checkpoint, written)
    metadata = CheckpointMetadata(
        file=path.name, step=checkpoint.step, bytes=written.bytes, sha256=written.sha256, bits_per_byte=bits_per_byte
    )
    try:
        artifacts.write(path.with_suffix(".json"), metadata)
    except BaseException:
        if not path.with_suffix(".json").is_file():
            path.unlink(missing_ok=True)  # nobody vouches for it
        raise
    point_at(path, LAST_NAME)
    return path


def _serialize(checkpoint: Checkpoint, target: _Hashing) -> None:
    """torch.save, with the operating system's own error when a write fails: torch tells only of its position."""
    try:
        torch.save(checkpoint.values(), cast("BinaryIO", target))
    except RuntimeError as error:
        raise target.fault or error from error


class _Hashing(io.RawIOBase):
    """Writes through, hashes and counts what passes, and keeps the fault that a write ended in."""

    def __init__(self, file: BinaryIO, is_cancelled: Callable[[], bool]) -> None:
        self._file = file
        self._is_cancelled = is_cancelled
        self._hash = hashlib.sha256()
        self.bytes = 0
        self.fault: OSError | None = None

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # Any: what has a buffer
        try:
            if self._is_cancelled():
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            number = self._file.write(data)
        except OSError as fault:
            self.fault = fault
            raise
        self._hash.update(data)
        self.bytes += number
        return number


def point_at(path: Path, link: str) -> None:
    """Make `link` beside `path` a hard link to it, or a copy where the file system has no links."""
    target = path.with_name(link)
    temporary = path.with_name(f".{link}.link-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    try:
        os.link(path, temporary)
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        with files.atomic(target) as to, path.open("rb") as source:
            shutil.copyfileobj(source, to, 1 << 20)
    files.sync_folder(path.parent)
