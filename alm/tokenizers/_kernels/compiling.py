"""How kernels are compiled.

The folder for compiled code is chosen before any kernel is decorated: Numba fails there if it finds none itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.core import config as numba_config

from alm.tokenizers.compiled import folder

Kernel = Callable[..., Any]  # Any: a compiled function checks its own arguments


def kernel(function: Kernel) -> Kernel:
    """Compile `function` at its first call, or load what an earlier process compiled.

    Runs without the interpreter's lock, so that threads run kernels side by side. Divides as C does.
    """
    return _compiled(function)


def inlined(function: Kernel) -> Kernel:
    """A kernel that is copied into each one that calls it: for what runs once a word or once a byte.

    An array is seven arguments to a call, so calling costs more than such a function does.
    """
    return _compiled(function, forceinline=True)


def _compiled(function: Kernel, **options: Any) -> Kernel:
    settings: Any = numba_config
    before, settings.CACHE_DIR = settings.CACHE_DIR, str(folder() or "")
    try:
        compiled: Kernel = numba.njit(function, nogil=True, error_model="numpy", cache=folder() is not None, **options)
    finally:
        settings.CACHE_DIR = before
    return compiled
