"""Files that are read more than once: whether they are still what they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from alm.errors import InputError


class Unchanged:
    """Files as they are now, by number, size and time of the last change.

    A hash or a place in a file holds only for the file that it was taken from. Make it before either is taken, and
    call `check` once all is read.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._states = {path: _state(path) for path in paths}

    def check(self) -> None:
        """Raise `InputError` for a file that has changed, or is gone."""
        for path in self._changed():
            raise InputError(
                f"`{path}` has changed while it was read", hint="run the same command again, once nothing writes there"
            )

    def holds(self) -> bool:
        """Whether no file has changed."""
        return not any(self._changed())

    def _changed(self) -> Iterator[Path]:
        return (path for path, state in self._states.items() if _state(path) != state)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:  # whoever reads it says so
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
