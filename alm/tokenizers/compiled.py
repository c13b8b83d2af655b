"""When compiled code is worth its start: small texts are done in plain Python before a kernel would be loaded.

Both ways give the same ids, the same merges and the same files; tests hold them to that.
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

# In characters of text: where the two ways were measured to take equal time (docs/benchmarks.md).
_LOADED_PAYS = 1 << 12
_WARM_PAYS = 1 << 22
_COLD_PAYS = 1 << 25

_state = {"loaded": False}
_decided: ContextVar[bool | None] = ContextVar("decided", default=None)


@contextlib.contextmanager
def decided(*, use_kernels: bool) -> Iterator[None]:
    """In this context kernels are used, or are not, however much text there is: to compare both ways."""
    token = _decided.set(use_kernels)
    try:
        yield
    finally:
        _decided.reset(token)


def pays_off(characters: int, on_event: Listener = ignore) -> bool:
    """Whether kernels do this much text faster than plain Python, counting the time to load or to compile them.

    If so they are as good as loaded; that they have to be compiled first is told. `ALM_KERNELS` set to `always` or
    `never` decides it.
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
    """Where the tokenizer's kernels are kept between processes; None when nothing can be written."""
    return compiling.folder(Path(__file__).parent / "_kernels")


@functools.cache
def _is_warm() -> bool:
    return compiling.is_warm(folder())
