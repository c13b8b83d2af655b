"""Kind `processes`: one unit per worker at a time, each in its own process on this machine.

Processes are spawned, never forked, because a fork of a process with threads can hang.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from alm.engines import Engine, Result, Unit
from alm.errors import AlmError
from alm.events import Event, Listener, ignore

_POLL_SECONDS = 0.2
_on_event: Listener = ignore


@dataclass(frozen=True)
class Processes:
    """Runs up to `workers` units at once."""

    workers: int

    def map(
        self, function: Callable[[Unit, Listener], Result], units: Iterable[Unit], *, on_event: Listener = ignore
    ) -> Generator[tuple[int, Result], None, None]:
        """See `alm.engines.Engine.map`."""
        context = multiprocessing.get_context("spawn")
        channel: Any = context.Queue()  # Any: the standard library's queue has no public type
        pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_begin, initargs=(channel,))
        try:
            yield from _run(pool, self.workers, function, units, lambda: _deliver(channel, on_event))
        except BrokenProcessPool as error:
            raise AlmError(
                "a worker process died, perhaps because memory ran out",
                hint="run the same command again with fewer `--workers`: finished units are kept",
            ) from error
        except KeyboardInterrupt:
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            _deliver(channel, on_event)
            channel.close()
            channel.join_thread()


def build(*, workers: int, address: str | None) -> Engine:
    """Return the engine for `workers` workers."""
    return Processes(workers)


def _run(
    pool: ProcessPoolExecutor,
    workers: int,
    function: Callable[[Unit, Listener], Result],
    units: Iterable[Unit],
    deliver: Callable[[], None],
) -> Generator[tuple[int, Result], None, None]:
    waiting: dict[Future[Result], int] = {}
    failures: dict[int, AlmError] = {}
    source = enumerate(units)
    while True:
        # One more than there are workers, so that no worker waits for this loop.
        while not failures and len(waiting) <= workers and (following := next(source, None)) is not None:
            waiting[pool.submit(_call, function, following[1])] = following[0]
        if not waiting:
            break
        done, _ = wait(waiting, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
        deliver()
        for future in sorted(done, key=waiting.__getitem__):
            index = waiting.pop(future)
            try:
                result = future.result()
            except AlmError as error:
                failures[index] = error
                _cancel(waiting)
                continue
            yield index, result
    if failures:
        raise failures[min(failures)]


def _cancel(waiting: dict[Future[Result], int]) -> None:
    for future in list(waiting):
        if future.cancel():
            del waiting[future]


def _deliver(channel: Any, on_event: Listener) -> None:
    for event in _events(channel):
        on_event(event)


def _events(channel: Any) -> Iterator[Event]:
    with contextlib.suppress(queue.Empty):
        while True:
            yield channel.get_nowait()


# ---- in a worker --------------------------------------------------------------------------------


def _begin(channel: Any) -> None:
    global _on_event
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _on_event = channel.put
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit when the parent ends. A worker whose parent was killed would otherwise wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(function: Callable[[Unit, Listener], Result], unit: Unit) -> Result:
    return function(unit, _on_event)
