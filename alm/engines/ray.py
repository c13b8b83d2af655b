"""Kind `ray`: units as tasks of a Ray cluster, or of a Ray started on this machine.

A task that dies with its machine is run again elsewhere. All paths of a unit must lie on storage that every machine
of the cluster sees under the same name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from alm.engines import Engine, Result, Unit
from alm.errors import AlmError, ConfigError
from alm.events import Event, Listener, ignore

_TRIES_AGAIN = 3


@dataclass(frozen=True)
class Ray:
    """Runs units as tasks, twice as many at once as the cluster has processors."""

    workers: int
    address: str | None

    def map(
        self, function: Callable[[Unit, Listener], Result], units: Iterable[Unit], *, on_event: Listener = ignore
    ) -> Generator[tuple[int, Result], None, None]:
        """See `alm.engines.Engine.map`. The events of a unit arrive when it is done."""
        ray = _imported()
        is_ours = not ray.is_initialized()
        if is_ours:
            _connect(ray, self.workers, self.address)
        try:
            yield from _run(ray, function, units, on_event)
        finally:
            if is_ours:
                ray.shutdown()


def build(*, workers: int, address: str | None) -> Engine:
    """Return the engine: the cluster at `address`, or `workers` workers on this machine."""
    _imported()
    return Ray(workers, address)


def _imported() -> Any:  # Any: Ray is optional, and untyped
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without this, Ray warns that a future version leaves accelerators visible to tasks that request none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError("the engine `ray` is not installed", hint="run `pip install 'a-lm[cluster]'`") from error
    return ray


def _connect(ray: Any, workers: int, address: str | None) -> None:
    options = {"logging_level": "error", "log_to_driver": False}
    if address is None:
        ray.init(num_cpus=workers, include_dashboard=False, **options)
        return
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError) as error:
        raise AlmError(
            f"no Ray cluster answers at `{address}`: {error}", hint="run `ray status` on a machine of the cluster"
        ) from error


def _run(
    ray: Any, function: Callable[[Unit, Listener], Result], units: Iterable[Unit], on_event: Listener
) -> Generator[tuple[int, Result], None, None]:
    task = ray.remote(_call).options(max_retries=_TRIES_AGAIN, scheduling_strategy="SPREAD")
    most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting: dict[Any, int] = {}
    failures: dict[int, AlmError] = {}
    source = enumerate(units)
    while True:
        while not failures and len(waiting) < most and (following := next(source, None)) is not None:
            waiting[task.remote(function, following[1])] = following[0]
        if not waiting:
            break
        done, _ = ray.wait(list(waiting), num_returns=1)
        for reference in done:
            index = waiting.pop(reference)
            result, error, events = _outcome(ray, reference)
            for event in events:
                on_event(event)
            if error is not None:
                failures[index] = error
            else:
                yield index, result
    if failures:
        raise failures[min(failures)]


def _outcome(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.WorkerCrashedError as error:
        died = AlmError("a Ray worker died on the same unit repeatedly, perhaps because memory ran out")
        died.__cause__ = error
        return None, died, []


def _call(function: Callable[[Any, Listener], Any], unit: Any) -> tuple[Any, AlmError | None, list[Event]]:
    """Run in a worker. Return the result or the error, and the events."""
    events: list[Event] = []
    try:
        return function(unit, events.append), None, events
    except AlmError as error:
        return None, error, events
