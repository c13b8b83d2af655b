"""Kinds of engine, which run work over many units. Corpus preparation and packing use this one interface.

Each module has `build(*, workers, address)`, which returns an `Engine`. With any engine, a result depends on its unit
alone, units are consumed as needed, and `map` returns only after every started unit has ended, unless the process is
being killed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Protocol, TypeVar

from alm import kinds
from alm.events import Listener, ignore

Unit = TypeVar("Unit")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs a function over units."""

    def map(
        self, function: Callable[[Unit, Listener], Result], units: Iterable[Unit], *, on_event: Listener = ignore
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield `(index, function(unit, on_event))` for each unit, in the order in which they finish.

        Events that `function` sends reach `on_event`. After an error, no further unit starts, those in progress finish,
        and the first error, by the order of units, is raised.
        """
        ...


def choose(kind: str = "auto", *, workers: int = 1, address: str | None = None) -> Engine:
    """Return the engine of `kind`; `auto` is `serial` for one worker and `processes` for more."""
    name = kind if kind != "auto" else ("serial" if workers == 1 else "processes")
    engine: Engine = kinds.load("alm.engines", name).build(workers=workers, address=address)
    return engine
