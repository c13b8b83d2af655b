"""Loops compiled with Numba: how, and where compiled code is kept between processes.

Numba is imported when the first kernel is decorated, not before: half a second, which small work does not pay.
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
    """Numba has no build for some machines, Intel Macs among them."""
    return find_spec("numba") is not None


def folder(sources: Path) -> Path | None:
    """Where kernels written in `sources` are kept between processes; None when nothing can be written.

    It is named after a hash of the source of all of them (a file, or the files of a folder), because Numba looks only
    at the file that a kernel is written in, not at those it calls into.
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
    """Whether an earlier process has left compiled kernels in the folder `kept`."""
    return kept is not None and any(kept.rglob("*.nbi"))


def compiled(function: Kernel, *, kept: Path | None, **options: Any) -> Kernel:  # Any: options of numba.njit
    """`function`, compiled at its first call or loaded from the folder `kept`; where that is None, in memory only.

    Runs without the interpreter's lock, so that threads run kernels side by side. Divides as C does.
    """
    import numba
    from numba.core import config

    settings: Any = config
    # The folder is looked at when a kernel is decorated: Numba fails there if it finds none itself.
    before, settings.CACHE_DIR = settings.CACHE_DIR, str(kept or "")
    try:
        made: Kernel = numba.njit(function, nogil=True, error_model="numpy", cache=kept is not None, **options)
    finally:
        settings.CACHE_DIR = before
    return made


def _user_cache() -> Path:
    """The folder for caches of this user, as the platform has it."""
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
