"""Decides between compiled kernels and plain Python: plain Python finishes a small text before a kernel is loaded.

Both give the same ids, merges and files, which tests check.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from alm import compiling
from alm.events import Listener, Noted, ignore

# In characters of text: the measured points where both take equal time (docs/benchmarks.md).
_LOADED_PAYS = 1 << 12
_WARM_PAYS = 1 << 22
_COLD_PAYS = 1 << 25

_state = {"loaded": False}
_decided: ContextVar[bool | None] = ContextVar("decided", default=None)


@contextlib.contextmanager
def decided(*, use_kernels: bool) -> Iterator[None]:
    """Force kernels on or off in this context, whatever the size of the text, to compare both."""
    token = _decided.set(use_kernels)
    try:
        yield
    finally:
        _decided.reset(token)


def pays_off(characters: int, on_event: Listener = ignore) -> bool:
    """Whether kernels process this much text faster than plain Python, including the time to load or compile them.

    If so, the caller is expected to use them; a compilation that comes first is reported. `ALM_KERNELS=always` and
    `ALM_KERNELS=never` override the decision.
    """
    forced = os.environ.get("ALM_KERNELS", "")
    chosen = _decided.get()
    if chosen is not None:
        answer = chosen
    elif forced in ("always", "never"):
        answer = forced == "always"
    elif not compiling.is_installed():
        answer = False
    elif _state["loaded"]:
        answer = characters >= _LOADED_PAYS
    else:
        answer = characters >= _COLD_PAYS or (characters >= _WARM_PAYS and _is_warm())
    if answer and not _state["loaded"]:
        _state["loaded"] = True
        if not _is_warm():
            on_event(Noted("compiling the tokenizer's kernels: a few seconds, once per machine"))
    return answer


@functools.cache
def folder() -> Path | None:
    """Return the folder that keeps the compiled kernels between processes; None if nothing can be written."""
    return compiling.folder(Path(__file__).parent / "_kernels")


@functools.cache
def _is_warm() -> bool:
    return compiling.is_warm(folder())
