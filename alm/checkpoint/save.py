"""Writes a checkpoint so that a kill at any instant leaves the one before in place."""

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
from alm.checkpoint.retain import Retention, complete_in, link_or_copy, links, surplus

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
    """Write `checkpoint` into `run` and return the path of the numbered file. The caller holds the lock of the run.

    The checkpoint, its metadata and `ckpt-last.pt` appear atomically, together with the removal of checkpoints that
    `retention` does not keep; without `retention` all are kept.

    Raises `AlmError` when it cannot be written, or soon after `is_cancelled` returns true; no half-written file stays.
    """
    path = run / name(checkpoint.step, interrupted=interrupted)
    metadata_name = path.with_suffix(".json").name
    with files.staging(run, STAGING) as stage:
        with files.wrap_os_errors(path), (stage / path.name).open("wb") as file:
            written = _Hashing(file, is_cancelled)  # hashed while written, so that it need not be read again
            _serialize(checkpoint, written)
        metadata = CheckpointMetadata(
            file=path.name,
            step=checkpoint.step,
            bytes=written.bytes,
            sha256=written.sha256,
            bits_per_byte=bits_per_byte,
        )
        artifacts.write(stage / metadata_name, metadata)
        known = {**complete_in(run), path: metadata}
        for link, target in links(known, retention or _ALL).items():
            link_or_copy(stage / path.name if target == path else target, stage / link)
        gone = surplus(run, known, retention) if retention is not None else []
        # Metadata last, then the links: a checkpoint with metadata is complete, and a link never points to less.
        files.publish(stage, run, last=metadata_name, follows=LINK_NAMES, outdated=gone)
    return path


def _serialize(checkpoint: Checkpoint, target: _Hashing) -> None:
    """Call `torch.save`, and raise the operating system's error when a write fails: torch reports only a position."""
    try:
        torch.save(checkpoint.values(), cast("BinaryIO", target))
    except RuntimeError as error:
        raise target.fault or error from error


class _Hashing(io.RawIOBase):
    """Writes to a file, hashes and counts the bytes, and keeps the error of a failed write."""

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
