"""Numba compilation of kernels, and the folder that keeps compiled code between processes.

Numba is imported when the first kernel is decorated, not before: the import takes half a second, too long for small
work.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

Kernel = Callable[..., Any]  # Any: a compiled function checks its own arguments


@functools.cache
def is_installed() -> bool:
    """Whether Numba is installed: it has no build for some machines, Intel Macs among them."""
    return find_spec("numba") is not None


def folder(sources: Path) -> Path | None:
    """Return the folder that keeps the compiled kernels of `sources` between processes; None if it is not writable.

    Its name holds a hash of all sources (a file, or the files of a folder), because Numba checks only the file of a
    kernel for changes, not the files of the kernels that it calls.
    """
    given = os.environ.get("NUMBA_CACHE_DIR")
    chosen = (Path(given) if given else _user_cache() / "alm" / "kernels") / _version(sources)
    try:
        chosen.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=chosen):
            return chosen
    except OSError:
        return None


def is_warm(kept: Path | None) -> bool:
    """Whether the folder `kept` has compiled kernels of an earlier process."""
    return kept is not None and any(kept.rglob("*.nbi"))


def compiled(function: Kernel, *, kept: Path | None, **options: Any) -> Kernel:  # Any: options of numba.njit
    """Compile `function` at its first call, or load it from the folder `kept`; None keeps it in memory only.

    The kernel runs without the interpreter's lock, so that threads run kernels at the same time. Division by zero
    gives infinity or NaN, as in C.
    """
    import numba
    from numba.core import config

    settings: Any = config
    # Numba reads the folder when a kernel is decorated, and fails there if it finds no writable one by itself.
    before, settings.CACHE_DIR = settings.CACHE_DIR, str(kept or "")
    try:
        made: Kernel = numba.njit(function, nogil=True, error_model="numpy", cache=kept is not None, **options)
    finally:
        settings.CACHE_DIR = before
    return made


def _user_cache() -> Path:
    """Return the platform's folder for this user's caches."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _version(sources: Path) -> str:
    digest = hashlib.sha256(f"{version('numba')} {sys.version}".encode())
    for source in sorted(sources.glob("*.py")) if sources.is_dir() else [sources]:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
