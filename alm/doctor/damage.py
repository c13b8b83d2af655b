"""Ways to damage a checkpoint on the disk."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path


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
