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


class StopReason(Enum):
    """Reason why a run ends early: the word for messages, and the exit code.

    SIGUSR1 and the time limit are how a scheduler asks for the machine back: the exit code says that the run is not
    finished and should be started again. To avoid an endless loop of starts, each start does at least one step:
    SIGUSR1 waits for it, and a time limit that ends before it is an error (`finish.out_of_time_error`).
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


_ORDER = list(StopReason)
_REASONS = {"SIGINT": StopReason.INTERRUPTED, "SIGTERM": StopReason.TERMINATED, "SIGUSR1": StopReason.ASKED}

_ONE_CTRL_C_SECONDS = 2.0  # signals of several sources within it are one Ctrl-C


class StopRequests:
    """Context in which the first signal, or `deadline` (of `time.monotonic`), sets `reason` on this rank.

    `has_progressed` says whether this start has done a step; until then SIGUSR1 sets no `reason`. `agreed` makes of
    the ranks' reasons one decision: `agreed_reason` is that of one of them, the same on every rank.

    SIGINT after an earlier signal stops at once (for several ranks see `_is_next_ctrl_c`). Outside the main thread
    Python allows no handlers, so signals are not caught. Windows has no SIGUSR1.
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        deadline: float | None = None,
        on_request: Callable[[], None] = lambda: None,
        has_progressed: Callable[[], bool] = lambda: True,
    ) -> None:
        self._world = world or World()
        self._deadline = deadline
        self._has_progressed = has_progressed
        self._on_request = on_request
        self._signalled: StopReason | None = None
        self._signalled_at = 0.0  # of `time.monotonic`
        self._before: dict[signal.Signals, Any] = {}  # Any: what signal.signal returns
        self.agreed_reason: StopReason | None = None

    @property
    def reason(self) -> StopReason | None:
        """Reason for this rank to stop, or None."""
        signalled = self._signalled
        if signalled is StopReason.ASKED and not self._has_progressed():
            signalled = None
        if signalled is None and self._deadline is not None and time.monotonic() >= self._deadline:
            return StopReason.OUT_OF_TIME
        return signalled

    def is_requested(self) -> bool:
        """Whether this rank alone has a reason to stop."""
        return self.reason is not None

    def agreed(self) -> bool:
        """Whether any rank has a reason to stop. Ranks call it together, and all get the same answer.

        A rank that stopped by itself would leave the others waiting in their next collective.
        """
        own = self.reason
        number = self._world.greatest(0 if own is None else _ORDER.index(own) + 1)
        self.agreed_reason = _ORDER[number - 1] if number else None
        return number > 0

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
        if self._signalled is not None and self._is_next_ctrl_c(number):
            raise StoppedError("stopped at once: steps after the last checkpoint are lost")
        if self._signalled is None:
            self._signalled_at = time.monotonic()
            self._on_request()
        self._signalled = _REASONS[signal.Signals(number).name]

    def _is_next_ctrl_c(self, number: int) -> bool:
        if self._world.size == 1:
            return number == signal.SIGINT
        # A Ctrl-C may reach a rank twice, from the terminal and from torchrun, and both need not arrive together. If
        # only some ranks stopped at once, the others would wait for them. torchrun passes the next one on as SIGTERM.
        is_repeated = number == signal.SIGINT or self._signalled is StopReason.INTERRUPTED
        return is_repeated and time.monotonic() - self._signalled_at > _ONE_CTRL_C_SECONDS
