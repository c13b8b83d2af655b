"""Kind `serial`: runs one unit at a time, in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

from alm.engines import Engine, Result, Unit
from alm.events import Listener, ignore


@dataclass(frozen=True)
class Serial:
    """Runs units in their order."""

    def map(
        self, function: Callable[[Unit, Listener], Result], units: Iterable[Unit], *, on_event: Listener = ignore
    ) -> Generator[tuple[int, Result], None, None]:
        """See `alm.engines.Engine.map`."""
        for index, unit in enumerate(units):
            yield index, function(unit, on_event)


def build(*, workers: int, address: str | None) -> Engine:
    """Return the engine, which has no settings."""
    return Serial()
