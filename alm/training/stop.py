"""Requests to stop a run: signals and a time limit become a flag that the loop checks between micro-batches."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from enum import Enum
from types import FrameType, TracebackType
from typing import Any

from alm.distributed import World
from alm.errors import EXIT_AGAIN, EXIT_INTERRUPTED, EXIT_TERMINATED, StoppedError


class Reason(Enum):
    """Reason why a run ends early: the word for messages, and the exit code.

    SIGUSR1 and the time limit are how a scheduler asks for the machine back: the exit code says that the run is not
    finished and should be started again. To avoid an endless loop of starts, each start does at least one step:
    SIGUSR1 waits for it, and a time limit that ends before it is an error (`ending.out_of_time`).
    """

    INTERRUPTED = ("interrupted", EXIT_INTERRUPTED)
    TERMINATED = ("terminated", EXIT_TERMINATED)
    ASKED = ("stopped by SIGUSR1", EXIT_AGAIN)
    OUT_OF_TIME = ("stopped by the time limit", EXIT_AGAIN)

    @property
    def word(self) -> str:
        return self.value[0]

    @property
    def exit_code(self) -> int:
        return self.value[1]


_ORDER = list(Reason)
_REASONS = {"SIGINT": Reason.INTERRUPTED, "SIGTERM": Reason.TERMINATED, "SIGUSR1": Reason.ASKED}


class Agreement:
    """Decision to stop that all ranks make together: `reason` is that of one of them, the same on every rank."""

    def __init__(self, requests: StopRequests, world: World) -> None:
        self._requests = requests
        self._world = world
        self.reason: Reason | None = None

    def __call__(self) -> bool:
        own = self._requests.reason
        number = self._world.greatest(0 if own is None else _ORDER.index(own) + 1)
        self.reason = _ORDER[number - 1] if number else None
        return number > 0


class StopRequests:
    """Context in which the first signal, or `deadline` (of `time.monotonic`), sets `reason`.

    `has_progressed` says whether this start has done a step; until then SIGUSR1 sets no `reason`.

    SIGINT after an earlier signal stops at once. Outside the main thread Python allows no handlers, so signals are not
    caught. Windows has no SIGUSR1.
    """

    def __init__(
        self,
        *,
        deadline: float | None = None,
        on_request: Callable[[], None] = lambda: None,
        has_progressed: Callable[[], bool] = lambda: True,
    ) -> None:
        self._deadline = deadline
        self._has_progressed = has_progressed
        self._on_request = on_request
        self._signalled: Reason | None = None
        self._before: dict[signal.Signals, Any] = {}  # Any: what signal.signal returns

    @property
    def reason(self) -> Reason | None:
        """Reason to stop, or None."""
        signalled = self._signalled
        if signalled is Reason.ASKED and not self._has_progressed():
            signalled = None
        if signalled is None and self._deadline is not None and time.monotonic() >= self._deadline:
            return Reason.OUT_OF_TIME
        return signalled

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            for name in _REASONS:
                number = getattr(signal, name, None)
                if number is not None:
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signalled is not None and number == signal.SIGINT:
            raise StoppedError("stopped at once: steps after the last checkpoint are lost")
        if self._signalled is None:
            self._on_request()
        self._signalled = _REASONS[signal.Signals(number).name]
