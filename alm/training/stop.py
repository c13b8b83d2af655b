"""Asking a run to stop: SIGINT and SIGTERM become a flag that the loop looks at between micro-batches."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from alm.errors import StoppedError


class StopSignals:
    """While this context lasts, the first SIGINT or SIGTERM sets `requested`; a second SIGINT stops at once.

    Outside the main thread, where Python allows no handlers, nothing is installed and nothing is requested.
    """

    def __init__(self, *, on_request: Callable[[], None] = lambda: None) -> None:
        self._on_request = on_request
        self.requested = False
        self.terminated = False
        self._before: dict[signal.Signals, Any] = {}  # Any: what signal.signal returns

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise StoppedError("stopped at once: what the last checkpoint holds is all there is")
        if not self.requested:
            self._on_request()
        self.requested = True
        self.terminated = number == signal.SIGTERM
