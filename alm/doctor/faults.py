"""Faults of a run: its processes are killed, and its checkpoints on the disk are damaged."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from alm.files import is_running

_POLL_SECONDS = 0.005
_PROCESSES = Path("/proc")


def children(parent: int) -> list[int]:
    """List the ids of the running processes that `parent` has started; always empty on Windows."""
    if sys.platform == "win32":
        return []
    pairs = _from_proc() if (_PROCESSES / "self" / "stat").is_file() else _from_ps()
    return sorted(child for child, of in pairs if of == parent)


def _from_proc() -> list[tuple[int, int]]:
    found = []
    for path in _PROCESSES.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended in between
            # State and parent come after the name, which may hold anything.
            state, of = path.read_text("utf-8", "replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                found.append((int(path.parent.name), int(of)))
    return found


def _from_ps() -> list[tuple[int, int]]:
    lines = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [(int(child), int(of)) for child, of in map(str.split, lines.splitlines())]


def stopped(process: subprocess.Popen[bytes]) -> None:
    """Suspend `process`, if the system can."""
    if sys.platform != "win32" and process.poll() is None:
        process.send_signal(signal.SIGSTOP)


def killed(process: int) -> None:
    """Kill the process with this id, and return when it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    while is_running(process):
        time.sleep(_POLL_SECONDS)


def truncated(path: Path, draw: random.Random) -> None:
    """Cut the file short."""
    with path.open("r+b") as file:
        file.truncate(draw.randrange(1, path.stat().st_size))


def flipped(path: Path, draw: random.Random) -> None:
    """Flip one bit."""
    with path.open("r+b") as file:
        at = draw.randrange(path.stat().st_size)
        file.seek(at)
        byte = file.read(1)[0] ^ (1 << draw.randrange(8))
        file.seek(at)
        file.write(bytes([byte]))


def emptied(path: Path, draw: random.Random) -> None:
    """Leave a file without bytes."""
    with path.open("r+b") as file:
        file.truncate(0)


def garbled(path: Path, draw: random.Random) -> None:
    """Overwrite the metadata with random bytes."""
    path.with_suffix(".json").write_bytes(draw.randbytes(200))


def orphaned(path: Path, draw: random.Random) -> None:
    """Remove the metadata."""
    path.with_suffix(".json").unlink()


KINDS: tuple[Callable[[Path, random.Random], None], ...] = (truncated, flipped, emptied, garbled, orphaned)
