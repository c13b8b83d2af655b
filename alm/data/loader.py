"""Batches: any step's sequences, as a pure function of (seed, step, rank, world size).

There is no loader state to save or to lose. Resuming means asking for the next step.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from alm.data.order import Positions, permute
from alm.packing.shards import TokenStream

_PATIENCE_SECONDS = 0.2
_LONGEST_FAREWELL_SECONDS = 5.0


@dataclass(frozen=True)
class MicroBatch:
    """Inputs and targets of one forward, int64, both (B, T); targets are inputs shifted by one."""

    inputs: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True)
class BatchPlan:
    """What decides every batch of a run. `sequences_per_step` is global, whatever the world size."""

    sequences: int
    sequences_per_step: int
    micro_batch_size: int
    seed: int

    def rows(self, step: int, *, rank: int = 0, world_size: int = 1) -> Positions:
        """Rows that `rank` of `world_size` trains on in `step` (counted from 0): its part of the global batch."""
        share = self.sequences_per_step // world_size
        assert share * world_size == self.sequences_per_step, (self.sequences_per_step, world_size)
        first = step * self.sequences_per_step + rank * share
        numbers = np.arange(first, first + share, dtype=np.int64)
        epochs, positions = np.divmod(numbers, self.sequences)
        rows = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = permute(positions[here], size=self.sequences, seed=self.seed, epoch=int(epoch))
        return rows


def read_step(
    stream: TokenStream, plan: BatchPlan, step: int, *, rank: int = 0, world_size: int = 1
) -> list[MicroBatch]:
    """The micro-batches of `step`, in order."""
    rows = plan.rows(step, rank=rank, world_size=world_size)
    return [
        micro_batch(stream, rows[start : start + plan.micro_batch_size])
        for start in range(0, len(rows), plan.micro_batch_size)
    ]


def micro_batch(stream: TokenStream, rows: Positions) -> MicroBatch:
    """The rows as one micro-batch."""
    ids = torch.from_numpy(stream.rows(rows))
    return MicroBatch(inputs=ids[:, :-1], targets=ids[:, 1:])


class Loader:
    """The micro-batches of steps `first_step` .. `last_step - 1`, read ahead by one thread.

    Use as a context manager: leaving it ends the thread. Iterating yields (step, micro-batches), and ends
    early when `should_stop` says so while a batch is waited for.
    """

    def __init__(
        self,
        stream: TokenStream,
        plan: BatchPlan,
        *,
        first_step: int,
        last_step: int,
        prefetch: int,
        pin: bool,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stream = stream
        self._plan = plan
        self._steps = range(first_step, last_step)
        self._pin = pin
        self._should_stop = should_stop
        self._ready: queue.Queue[tuple[int, list[MicroBatch]] | BaseException] = queue.Queue(max(1, prefetch))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="alm-loader", daemon=True) if prefetch else None

    def __enter__(self) -> Loader:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._thread is not None:
            patience = time.monotonic() + _LONGEST_FAREWELL_SECONDS
            while self._thread.is_alive() and time.monotonic() < patience:
                self._drain()  # the thread may wait for room in the queue
                self._thread.join(timeout=0.01)

    def __iter__(self) -> Iterator[tuple[int, list[MicroBatch]]]:
        for step in self._steps:
            if self._thread is None:
                yield step, self._read(step)
                continue
            ready = self._next()
            if ready is None:
                return
            yield ready

    def _next(self) -> tuple[int, list[MicroBatch]] | None:
        """The next step's batches; None when asked to stop while they are still being read."""
        while True:
            try:
                ready = self._ready.get(timeout=_PATIENCE_SECONDS)
            except queue.Empty:
                if self._should_stop():
                    return None
                continue
            if isinstance(ready, BaseException):
                raise ready
            return ready

    def _read(self, step: int) -> list[MicroBatch]:
        batches = read_step(self._stream, self._plan, step)
        if not self._pin:
            return batches
        return [MicroBatch(batch.inputs.pin_memory(), batch.targets.pin_memory()) for batch in batches]

    def _fill(self) -> None:
        try:
            for step in self._steps:
                if self._closed.is_set():
                    return
                self._ready.put((step, self._read(step)))
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            self._ready.put(error)

    def _drain(self) -> None:
        while not self._ready.empty():
            self._ready.get_nowait()
