"""Batches: the sequences of any step, as a pure function of (seed, step, rank, world size).

The loader has no state to save or to lose (ADR 0004). Resuming means asking for the next step.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from alm.data.config import DataConfig
from alm.data.mixture import Mixture, keyed, mixture, plain
from alm.data.order import Positions, permute
from alm.errors import ConfigError
from alm.packing.shards import TRAINED, TokenStream

NO_TARGET = -1
_POLL_SECONDS = 0.2
_MOST_SECONDS_TO_CLOSE = 5.0


@dataclass(frozen=True)
class MicroBatch:
    """Inputs and targets of one forward pass, int64, both (B, T). Targets are the inputs shifted by one.

    The target of padding is `NO_TARGET`: nothing is predicted there. Of conversations, `documents` (B, T) int32 number
    the one of each input, which sees no other.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    is_padded: bool = False
    documents: torch.Tensor | None = None

    def target_count(self) -> int:
        """Return the number of predicted tokens."""
        return int((self.targets != NO_TARGET).sum()) if self.is_padded else self.targets.numel()


@dataclass(frozen=True)
class BatchPlan:
    """Everything that decides the batches of a run. `sequences_per_step` is global, whatever the world size.

    Each pass over a source after the first begins its rows later, by less than `shift_below` tokens; 0 for never.
    """

    mixture: Mixture
    sequences_per_step: int
    micro_batch_size: int
    seed: int
    shift_below: int = 0

    def rows(self, step: int, *, rank: int = 0, world_size: int = 1) -> Positions:
        """Return the rows of `rank` in `step` (counted from 0): its part of the global batch."""
        return self.cuts(step, rank=rank, world_size=world_size)[0]

    def cuts(self, step: int, *, rank: int = 0, world_size: int = 1) -> tuple[Positions, Positions]:
        """Return the rows of `rank` in `step`, and how many tokens later than in the first pass each of them begins.

        The last row of a source always ends with it, so it stays.
        """
        first, end = (self.sequences_per_step * (rank + more) // world_size for more in (0, 1))
        start = step * self.sequences_per_step
        rows, passes = self.mixture.rows(np.arange(start + first, start + end, dtype=np.int64), seed=self.seed)
        shifts = np.zeros_like(rows)
        if self.shift_below:
            last = np.isin(rows, [share.first + share.rows - 1 for share in self.mixture.shares])
            for number in np.unique(passes[passes > 0]).tolist():
                shifts[(passes == number) & ~last] = self._shift(number)
        return rows, shifts

    def _shift(self, number: int) -> int:
        """Return the shift of pass `number`, from 1: all shifts but 0 come once before any comes again."""
        around, place = divmod(number - 1, self.shift_below - 1)
        seed = keyed(self.seed, "shifts")
        return 1 + int(permute(np.array([place]), size=self.shift_below - 1, seed=seed, epoch=around)[0])


def batch_plan(
    stream: TokenStream, data: DataConfig, *, sequences_per_step: int, micro_batch_size: int, seed: int
) -> BatchPlan:
    """Return the plan of a run on `stream`.

    Raises `ConfigError` for a mixture with sources that it does not have, and for rows that cannot be cut elsewhere.
    """
    chosen = mixture(data.mixture, stream.sources) if data.mixture else plain(stream.sequences)
    can_recut = stream.stride == stream.seq_len  # rows of bestfit do not follow one another
    if data.recut is True and not can_recut:
        raise ConfigError(
            "`data.recut` needs rows that follow one another, and this data was packed with bestfit",
            hint="leave out `data.recut`, or pack it again with `--mode concat`",
        )
    shift_below = stream.seq_len if data.recut and can_recut else 0
    return BatchPlan(chosen, sequences_per_step, micro_batch_size, seed, shift_below)


def target_count(stream: TokenStream, plan: BatchPlan, step: int) -> int:
    """Return the number of tokens that all ranks together predict in `step`."""
    if stream.is_masked:
        return int((stream.mask(plan.rows(step))[:, 1:] == TRAINED).sum())
    padded = sum(stream.padding.get(row, 0) for row in plan.rows(step).tolist()) if stream.padding else 0
    return plan.sequences_per_step * stream.seq_len - padded


def read_step(
    stream: TokenStream, plan: BatchPlan, step: int, *, rank: int = 0, world_size: int = 1
) -> list[MicroBatch]:
    """Read the micro-batches of `step`, in order."""
    rows, shifts = plan.cuts(step, rank=rank, world_size=world_size)
    size = plan.micro_batch_size
    parts = [slice(start, start + size) for start in range(0, len(rows), size)]
    return [micro_batch(stream, rows[part], shifts[part]) for part in parts]


def micro_batch(stream: TokenStream, rows: Positions, shifts: Positions | None = None) -> MicroBatch:
    """Read the rows, or what begins `shifts` tokens later, as one micro-batch."""
    if stream.is_masked:
        return _of_conversations(stream, rows)
    ids = torch.from_numpy(stream.rows(rows, shifts))
    targets = ids[:, 1:]
    padded = [(at, stream.padding[row]) for at, row in enumerate(rows.tolist()) if row in stream.padding]
    if padded:
        targets = targets.clone()  # a view of `ids`, whose other view is the inputs
        for at, padding in padded:
            targets[at, -padding:] = NO_TARGET
    return MicroBatch(inputs=ids[:, :-1], targets=targets, is_padded=bool(padded))


def _pinned(batch: MicroBatch) -> MicroBatch:
    documents = None if batch.documents is None else batch.documents.pin_memory()
    return replace(batch, inputs=batch.inputs.pin_memory(), targets=batch.targets.pin_memory(), documents=documents)


def _of_conversations(stream: TokenStream, rows: Positions) -> MicroBatch:
    """Read rows of conversations, which are never cut elsewhere."""
    ids = torch.from_numpy(stream.rows(rows))
    is_trained = torch.from_numpy(stream.mask(rows) == TRAINED)
    targets = ids[:, 1:].masked_fill(~is_trained[:, 1:], NO_TARGET)
    documents = torch.from_numpy(stream.documents(rows))[:, :-1].contiguous()
    return MicroBatch(inputs=ids[:, :-1], targets=targets, is_padded=True, documents=documents)


class Loader:
    """Reads the micro-batches of a rank in steps `first_step` .. `last_step - 1` ahead, in one thread.

    Use it as a context manager, which ends the thread. Iterating yields (step, micro-batches). It ends early if
    `should_stop` returns True while it waits for a batch.
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
        rank: int = 0,
        world_size: int = 1,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stream = stream
        self._plan = plan
        self._steps = range(first_step, last_step)
        self._pin = pin
        self._part = {"rank": rank, "world_size": world_size}
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
            deadline = time.monotonic() + _MOST_SECONDS_TO_CLOSE
            while self._thread.is_alive() and time.monotonic() < deadline:
                self._drain()  # the thread may be waiting for room in the queue
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
        """Return the batches of the next step, or None if asked to stop while waiting for them."""
        while True:
            try:
                ready = self._ready.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if self._should_stop():
                    return None
                continue
            if isinstance(ready, BaseException):
                raise ready
            return ready

    def _read(self, step: int) -> list[MicroBatch]:
        batches = read_step(self._stream, self._plan, step, **self._part)
        if not self._pin:
            return batches
        return [
            replace(
                batch,
                inputs=batch.inputs.pin_memory(),
                targets=batch.targets.pin_memory(),
                documents=None if batch.documents is None else batch.documents.pin_memory(),
            )
            for batch in batches
        ]

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
