"""Checks that files which are read more than once do not change in between."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from alm.errors import ArtifactError, InputError


class Unchanged:
    """State of files when this was created: size and time of the last change, or that there is none.

    A hash or an offset is valid only for the file that it was taken from. Create this before either is taken, and call
    `check` once everything is read.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._states = {path: _state(path) for path in paths}

    def part(self, paths: Iterable[Path]) -> Unchanged:
        """Return the state of some of the files, as it was when this was created."""
        some = Unchanged([])
        some._states = {path: self._states[path] for path in paths}
        return some

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """If the block refuses its input, check first: a changed file is the more likely cause."""
        try:
            yield
        except (InputError, ArtifactError):
            self.check()
            raise

    def check(self) -> None:
        """Raise `InputError` for a file that has changed or is gone."""
        for path in self._changed():
            raise InputError(
                f"`{path}` has changed while it was read", hint="run the same command again, once nothing writes there"
            )

    def holds(self) -> bool:
        """Whether no file has changed."""
        return not any(self._changed())

    def _changed(self) -> Iterator[Path]:
        return (path for path, state in self._states.items() if _state(path) != state)


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:  # the code that reads it reports the error
        return None
    return status.st_size, status.st_mtime_ns  # not the inode: some network file systems number files again
