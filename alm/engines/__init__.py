"""Kinds of engine: how work over many units runs. The one seam that preparing a corpus and packing use.

Each module has `build(*, workers, address)`, an `Engine`. Whatever the engine, a result depends on its unit alone,
units are asked for as they are needed, and every unit that was begun is ended before `map` is left, unless the
process is being killed.
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
        """`(index, function(unit, tell))` for each unit, in the order in which they are done.

        What `function` tells reaches `on_event`. After an error in a unit no other is begun, those in progress are
        ended, and the first error, by the order of units, is raised.
        """
        ...


def choose(kind: str = "auto", *, workers: int = 1, address: str | None = None) -> Engine:
    """The engine of `kind`; `auto` is `serial` for one worker and `processes` for more."""
    name = kind if kind != "auto" else ("serial" if workers == 1 else "processes")
    engine: Engine = kinds.load("alm.engines", name).build(workers=workers, address=address)
    return engine
