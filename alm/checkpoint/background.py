"""Writes checkpoints while training continues: it takes a copy, and a thread does the rest.

Training waits only for the copy. Serializing, hashing, writing and removing older checkpoints happen in the thread,
one checkpoint at a time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from alm import files
from alm.checkpoint.format import Checkpoint, name
from alm.checkpoint.retain import Retention
from alm.checkpoint.save import save_checkpoint
from alm.errors import AlmError, StoppedError

_PATIENCE_SECONDS = 0.2  # Windows runs no signal handler while a wait has no end

Saved = Callable[[int, Path], object]
Full = Callable[[AlmError], object]


class HostCopy:
    """Copies of tensors on the host. Buffers are reused: the next copy overwrites the one before."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def of(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return `checkpoint` with copies of its tensors: later changes of the originals do not reach it."""
        copied = replace(
            checkpoint,
            **{name: self._of(getattr(checkpoint, name), name) for name in ("model", "trained", "optimizer", "rng")},
        )
        if torch.cuda.is_available():  # the copies are asynchronous, and the next step changes their sources
            torch.cuda.current_stream().synchronize()
        return copied

    def _of(self, value: Any, place: str) -> Any:  # Any: what a checkpoint holds
        if isinstance(value, torch.Tensor):
            return self._tensor(value, place)
        if isinstance(value, dict):
            return {key: self._of(item, f"{place}/{key}") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._of(item, f"{place}/{number}") for number, item in enumerate(value))
        return value

    def _tensor(self, tensor: torch.Tensor, place: str) -> torch.Tensor:
        buffer = self._buffers.get(place)
        if buffer is None or (buffer.shape, buffer.dtype) != (tensor.shape, tensor.dtype):
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._buffers[place] = buffer
        return buffer.copy_(tensor.detach(), non_blocking=tensor.is_cuda)


class CheckpointWriter:
    """Saves checkpoints of one run, in the background or at once. Use as a context manager.

    `on_saved` is called for each checkpoint that is completely on the disk, `on_full` for one that the disk had no
    room for, which leaves earlier ones unchanged. Both are called in the caller's thread, where every other error is
    raised too: by `poll`, or by the next call.

    `retention` may be replaced while no checkpoint is in flight.

    Leaving the context waits for the checkpoint in flight, but cancels it when the run is stopped at once.
    """

    def __init__(self, run: Path, retention: Retention, *, on_saved: Saved, on_full: Full) -> None:
        self._run = run
        self.retention = retention
        self._on_saved = on_saved
        self._on_full = on_full
        self._copy = HostCopy()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="alm-checkpoint")
        self._in_flight: tuple[int, Future[Path]] | None = None
        self._saved_step: int | None = None
        self._cancelled = threading.Event()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, StoppedError):
                self._cancelled.set()
            elif error is None:
                self.wait()
        finally:
            self._thread.shutdown(wait=True)

    def save(self, checkpoint: Checkpoint, *, bits_per_byte: float | None = None) -> None:
        """Save a copy of `checkpoint` in the background; wait for the one before, and for the copy."""
        self.wait()
        copied = self._copy.of(checkpoint)
        self._in_flight = (checkpoint.step, self._thread.submit(self._write, copied, bits_per_byte=bits_per_byte))

    def save_now(
        self, checkpoint: Checkpoint, *, interrupted: bool = False, bits_per_byte: float | None = None
    ) -> Path:
        """Save `checkpoint` itself, without a copy, and wait for it: for the end of a run.

        An error of the one in flight does not matter if this one is saved.
        """
        with contextlib.suppress(AlmError):
            self.wait()
        path = self._write(checkpoint, interrupted=interrupted, bits_per_byte=bits_per_byte)
        self._report_saved(checkpoint.step, path)
        return path

    def has_saved(self, step: int) -> bool:
        """Whether the newest finished checkpoint is that of `step`."""
        return self._saved_step == step

    def _report_saved(self, step: int, path: Path) -> None:
        self._saved_step = step
        self._on_saved(step, path)

    def poll(self) -> None:
        """Report the checkpoint in flight if it is finished, or raise its error; never wait."""
        if self._in_flight is not None and self._in_flight[1].done():
            step, future = self._in_flight
            self._in_flight = None
            try:
                path = future.result()
            except AlmError as error:
                if not files.is_full(error):
                    raise
                self._on_full(error)
            else:
                self._report_saved(step, path)

    def wait(self) -> None:
        """Wait for the checkpoint in flight, if there is one."""
        if self._in_flight is not None:
            while not wait([self._in_flight[1]], timeout=_PATIENCE_SECONDS).done:
                pass
            self.poll()

    def _write(self, checkpoint: Checkpoint, *, interrupted: bool = False, bits_per_byte: float | None = None) -> Path:
        return save_checkpoint(
            checkpoint,
            self._run,
            retention=self.retention,
            interrupted=interrupted,
            bits_per_byte=bits_per_byte,
            is_cancelled=self._cancelled.is_set,
        )


class NoWriter(CheckpointWriter):
    """Discards checkpoints, for a rank that writes no files."""

    def save(self, checkpoint: Checkpoint, *, bits_per_byte: float | None = None) -> None:
        pass

    def save_now(
        self, checkpoint: Checkpoint, *, interrupted: bool = False, bits_per_byte: float | None = None
    ) -> Path:
        return self._run / name(checkpoint.step, interrupted=interrupted)
