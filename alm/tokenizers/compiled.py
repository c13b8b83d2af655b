"""When compiled code is worth its start: small texts are done in plain Python before a kernel would be loaded.

Both ways give the same ids, the same merges and the same files; tests hold them to that.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile

from alm.events import Listener, Noted

_LOADED_PAYS = 1 << 12
_WARM_PAYS = 1 << 22
_COLD_PAYS = 1 << 25

_state = {"loaded": False}


def pays_off(characters: int) -> bool:
    """Whether kernels do this much text faster than plain Python, counting the time to load or to compile them.

    `ALM_KERNELS=always` or `never` decides it.
    """
    forced = os.environ.get("ALM_KERNELS", "")
    if forced in ("always", "never"):
        return forced == "always"
    if not _is_installed():
        return False
    if _state["loaded"]:
        return characters >= _LOADED_PAYS
    return characters >= _COLD_PAYS or (characters >= _WARM_PAYS and _is_warm())


def announce(on_event: Listener) -> None:
    """Say that kernels are being compiled, if they are; to be called before their first use."""
    if not _state["loaded"]:
        _state["loaded"] = True
        if not _is_warm():
            on_event(Noted("compiling the tokenizer, about ten seconds, once for this machine"))


@functools.cache
def _is_installed() -> bool:
    """Numba has no build for some machines, Intel Macs among them."""
    return find_spec("numba") is not None


@functools.cache
def _is_warm() -> bool:
    """Whether an earlier process has left compiled kernels."""
    kept = folder()
    return kept is not None and any(kept.rglob("*.nbi"))


@functools.cache
def folder() -> Path | None:
    """Where compiled kernels are kept between processes; None when nothing can be written, as they live in one then.

    It is named after a hash of the source of all kernels, because Numba looks only at the file that a kernel is
    written in, not at those it calls into.
    """
    given = os.environ.get("NUMBA_CACHE_DIR")
    chosen = (Path(given) if given else _user_cache() / "alm" / "kernels") / _version()
    try:
        chosen.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=chosen):
            return chosen
    except OSError:
        return None


def _user_cache() -> Path:
    """The folder for caches of this user, as the platform has it."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _version() -> str:
    digest = hashlib.sha256(f"{version('numba')} {sys.version}".encode())
    for source in sorted((Path(__file__).parent / "_kernels").glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
