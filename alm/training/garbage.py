"""Keeping Python's garbage collector out of training steps: a pause of a rank is a pause of all."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """No collection of its own accord in this context, which is for loops that call `gc.collect()` when they rest.

    What is alive at its beginning is frozen, so that such a collection looks at new objects alone. Both are undone at
    the end; objects that were frozen before stay so.
    """
    was_enabled, had_frozen = gc.isenabled(), gc.get_freeze_count() > 0
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        if not had_frozen:
            gc.unfreeze()
        if was_enabled:
            gc.enable()
