"""Measures the speed of a run, its use of the device, and its waiting time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from alm.device import Choice, matmul_rate, measured_matmul_rate, peak_memory_bytes
from alm.model.count import count
from alm.training.config import RunConfig

T = TypeVar("T")


@dataclass(frozen=True)
class LapTime:
    """Seconds of `steps` steps, of which `waited` were spent on batches, without validation, saving and sampling."""

    seconds: float
    steps: int
    waited: float


class StepTimer:
    """Seconds of training between two log lines."""

    def __init__(self, step: int) -> None:
        self._started = time.perf_counter()
        self._step = step
        self._waited = 0.0

    def lap(self, step: int) -> LapTime:
        """Return the time since the last lap."""
        now = time.perf_counter()
        lap = LapTime(max(now - self._started, 1e-9), max(step - self._step, 1), self._waited)
        self._started, self._step, self._waited = now, step, 0.0
        return lap

    @contextlib.contextmanager
    def paused(self, report: Callable[[float], None] = lambda seconds: None) -> Iterator[None]:
        """Exclude the time in this context; `report` is called with its length in seconds."""
        since = time.perf_counter()
        yield
        seconds = time.perf_counter() - since
        self._started += seconds
        report(seconds)

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield `batches`, adding up the time spent waiting for them."""
        source = iter(batches)
        while True:
            since = time.perf_counter()
            try:
                batch = next(source)
            except StopIteration:
                return
            self._waited += time.perf_counter() - since
            yield batch


@dataclass(frozen=True)
class Measurement:
    """Means over a lap; `memory_bytes` is the peak so far, or None if unknown."""

    step_seconds: float
    tokens_per_second: float
    mfu: float
    data_wait_share: float
    memory_bytes: int | None

    def row(self) -> dict[str, float | int]:
        """Return the fields of a row of metrics."""
        known = {} if self.memory_bytes is None else {"memory_bytes": self.memory_bytes}
        return {
            "tokens_per_second": round(self.tokens_per_second, 1),
            "step_seconds": round(self.step_seconds, 6),
            "mfu": round(self.mfu, 4),
            "data_wait_share": round(self.data_wait_share, 4),
            **known,
        }


class Throughput:
    """Turns laps into measurements.

    `mfu` is model FLOPs utilization (Chowdhery et al. 2022, appendix B), with the rate of matrix products measured
    on the device in the run's precision in place of what its maker promises.
    """

    def __init__(self, config: RunConfig, choice: Choice, *, seq_len: int, ranks: int = 1) -> None:
        self._tokens_per_step = config.training.sequences_per_step * seq_len
        self._device = choice.device
        self._precision, self._ranks = choice.precision, ranks
        self._flops = count(config.model).training_flops_per_token(seq_len)
        self._tokens_per_second_at_best = ranks * matmul_rate(choice.device, choice.precision) / self._flops

    def measure(self, lap: LapTime) -> Measurement:
        rate = self._tokens_per_step * lap.steps / lap.seconds
        if rate > self._tokens_per_second_at_best:
            # Faster than possible: another program used the device when its rate was measured.
            again = self._ranks * measured_matmul_rate(self._device, self._precision) / self._flops
            self._tokens_per_second_at_best = max(rate, again)
        return Measurement(
            step_seconds=lap.seconds / lap.steps,
            tokens_per_second=rate,
            mfu=rate / self._tokens_per_second_at_best,
            data_wait_share=min(lap.waited / lap.seconds, 1.0),
            memory_bytes=peak_memory_bytes(self._device),
        )
