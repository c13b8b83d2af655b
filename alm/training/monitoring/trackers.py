"""Passes rows of metrics, and samples, to `logging.sinks`, so that no fault of a sink can harm the run.

Each sink has its own thread: a slow network delays no step, and an exception ends only the sink.
`metrics.jsonl` is written first, and has everything.
"""

from __future__ import annotations

import re
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing.pool import AsyncResult, ThreadPool
from pathlib import Path
from typing import Any

from alm import kinds
from alm.config.base import Config
from alm.errors import AlmError, ConfigError, quoted
from alm.events import Event, Listener, Noted, Sampled, Warned
from alm.files import read_json, write_json
from alm.training.config import RunConfig
from alm.training.monitoring import metrics
from alm.training.monitoring.metrics import Row
from alm.training.monitoring.sinks._sink import Opening, Sink, named

NAME = "sinks.json"
_OPENING_SECONDS = 120.0
_CLOSING_SECONDS = 60.0
_MOST_WAITING = 10_000
_ID_BYTES = 4
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_MOST_BYTES = 1 << 16


def check(sinks: Iterable[Config]) -> None:
    """Raise `ConfigError` if the package of a sink is not installed; call it before anything is written."""
    for config in sinks:
        module = kinds.module_of(config)
        if find_spec(module.PACKAGE) is None:
            raise ConfigError(
                f"`logging.sinks`: the sink `{_kind(config)}` needs the package {module.PACKAGE}",
                hint=f"run `pip install {quoted(module.INSTALL)}`",
            )


class Trackers:
    """Passes rows and samples to every open sink."""

    def __init__(self, on_event: Listener) -> None:
        self._on_event = on_event
        self._threads: list[_SinkThread] = []

    def open(self, config: Config, opening: Opening) -> None:
        """Open a sink; raise `AlmError` if that fails."""
        thread = _SinkThread(config, opening, self._on_event)
        self._threads.append(thread)
        self._on_event(Noted(f"sink {thread.kind}: {thread.where}"))

    def row(self, row: Row) -> None:
        """Pass on a row of metrics."""
        values = named(row)
        if values:
            for thread in self._threads:
                thread.put(lambda sink: sink.scalars(row["step"], values))

    def with_samples(self, on_event: Listener) -> Listener:
        """Return `on_event` extended so that samples also go to the sinks."""

        def listen(event: Event) -> None:
            on_event(event)
            if isinstance(event, Sampled):
                for thread in self._threads:
                    thread.put(lambda sink: sink.samples(event.step, event.texts))

        return listen

    def close(self) -> None:
        """Let every sink send the rest, within a time limit."""
        for thread in self._threads:
            thread.put(lambda sink: sink.close())
        for thread in self._threads:
            thread.end()


class _SinkThread:
    """One sink and its thread. The first exception is reported once and disables the sink."""

    def __init__(self, config: Config, opening: Opening, on_event: Listener) -> None:
        self.kind = _kind(config)
        self._on_event = on_event
        self._rows = opening.run / metrics.NAME
        # Its threads are daemons: unlike those of an executor they do not keep the process from ending.
        self._pool = ThreadPool(1)
        self._pending: deque[AsyncResult[None]] = deque()
        self._faults: deque[BaseException] = deque()
        opened = kinds.module_of(config).opened
        opening_it = self._pool.apply_async(opened, (config, opening), error_callback=self._faults.append)
        opening_it.wait(_OPENING_SECONDS)
        if not opening_it.ready() or not opening_it.successful():
            fault = self._faults[0] if self._faults else TimeoutError(f"no answer after {_OPENING_SECONDS:.0f} seconds")
            self._pool.terminate()
            raise _open_error(self.kind, fault) from fault
        self._sink: Sink | None = opening_it.get()
        self.where = self._sink.where

    def put(self, show: Callable[[Sink], None]) -> None:
        """Queue `show` for the sink's thread."""
        if self._sink is None:
            return
        self._pending.append(self._pool.apply_async(show, (self._sink,), error_callback=self._faults.append))
        self._check_done()
        if len(self._pending) > _MOST_WAITING:
            self._disable(f"is too slow and is disabled: {_MOST_WAITING:,} rows wait for it")

    def end(self) -> None:
        """Wait for the queue to empty, within a time limit, and end the thread."""
        if self._pending:
            self._pending[-1].wait(_CLOSING_SECONDS)
        self._check_done()
        if self._pending:
            self._disable(f"is not done after {_CLOSING_SECONDS:.0f} seconds: rows that it has not sent are lost")
        self._pool.terminate()

    def _check_done(self) -> None:
        while self._pending and self._pending[0].ready():
            if not self._pending.popleft().successful():
                self._disable(f"failed and is disabled: {_one_line(self._faults[0])}")

    def _disable(self, reason: str) -> None:
        self._pool.terminate()
        self._pending.clear()
        self._sink = None
        self._on_event(Warned(f"the sink `{self.kind}` {reason}", f"`{self._rows}` has every row"))


def _open_error(kind: str, fault: BaseException) -> AlmError:
    if isinstance(fault, AlmError):
        return fault
    return ConfigError(
        f"`logging.sinks`: the sink `{kind}` cannot be opened: {_one_line(fault)}",
        hint="fix that, or train without it: `--set logging.sinks=[]`",
    )


def _one_line(fault: BaseException) -> str:
    return " ".join(f"{type(fault).__name__}: {fault}".split())


def _kind(config: Config) -> str:
    kind: Any = getattr(config, "kind", "")  # every kind's configuration names it
    return str(kind)


@contextmanager
def open_trackers(config: RunConfig, run: Path, *, step: int, on_event: Listener) -> Iterator[Trackers]:
    """Open the sinks of `config` for a run that continues from `step`, and close them in the end."""
    trackers = Trackers(on_event)
    try:
        if config.logging.sinks:
            rows = [row for row in metrics.read(run) if row["step"] <= step]
            opening = Opening(run, _id(run), config.model_dump(mode="json"), step, rows)
            for sink in config.logging.sinks:
                trackers.open(sink, opening)
        yield trackers
    finally:
        trackers.close()


def _id(run: Path) -> str:
    """Return the run's id for trackers, drawn once: a later run in a folder of the same name gets another one."""
    path = run / NAME
    try:
        found = read_json(path, most=_MOST_BYTES)
    except AlmError:
        found = None
    known = found.get("id") if isinstance(found, dict) else None
    if isinstance(known, str) and _ID.fullmatch(known):
        return known
    drawn = secrets.token_hex(_ID_BYTES)
    write_json(path, {"id": drawn})
    return drawn
