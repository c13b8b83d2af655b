"""Writing a checkpoint so that a kill at any instant leaves the one before in place."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from alm import artifacts, files
from alm.artifacts import CheckpointMetadata
from alm.checkpoint import STAGING
from alm.checkpoint.format import LINK_NAMES, Checkpoint, name
from alm.checkpoint.retain import Retention, links, point_at, surplus, whole_in

_NEVER: Callable[[], bool] = bool
_ALL = Retention(last=1)


def save_checkpoint(
    checkpoint: Checkpoint,
    run: Path,
    *,
    retention: Retention | None = None,
    interrupted: bool = False,
    bits_per_byte: float | None = None,
    is_cancelled: Callable[[], bool] = _NEVER,
) -> Path:
    """Write `checkpoint` into `run`; the path of the numbered file. Hold the lock of the run.

    At one instant it is there with its metadata, `ckpt-last.pt` is another name for it, and what `retention` does not
    keep is gone; without `retention` all stay.

    Raises `AlmError` when it cannot be written, or soon after `is_cancelled` says so; nothing half-written stays.
    """
    path = run / name(checkpoint.step, interrupted=interrupted)
    promise_name = path.with_suffix(".json").name
    with files.staging(run, STAGING) as stage:
        with files.explained(path), (stage / path.name).open("wb") as file:
            written = _Hashing(file, is_cancelled)
            _serialize(checkpoint, written)
        metadata = CheckpointMetadata(
            file=path.name,
            step=checkpoint.step,
            bytes=written.bytes,
            sha256=written.sha256,
            bits_per_byte=bits_per_byte,
        )
        artifacts.write(stage / promise_name, metadata)
        known = {**whole_in(run), path: metadata}
        for link, target in links(known, retention or _ALL).items():
            point_at(stage / path.name if target == path else target, stage / link)
        gone = surplus(run, known, retention) if retention is not None else []
        files.publish(stage, run, last=promise_name, follows=LINK_NAMES, outdated=gone)
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
