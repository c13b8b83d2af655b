"""Keeps Python's garbage collector out of training steps: a pause of one rank makes all ranks wait."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Disable automatic collections in this context, for loops that call `gc.collect()` in their pauses.

    Objects that are alive at its start are frozen, so that such a collection visits only new objects. Both are undone
    at the end; objects that were frozen before stay frozen.
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
