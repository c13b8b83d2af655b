"""Every failure a person can cause, with the exit code it ends in.

    AlmError              1   a failure the message names
    |-- ConfigError       2   a configuration or a command line is wrong
    |-- InputError        1   text, shards or checkpoints that cannot be used
    |-- ArtifactError     1   an artifact is missing, damaged or made from other inputs
    `-- StoppedError      130 interrupted, 143 terminated, 75 to be started again: all after saving

Anything else that escapes is a bug and exits with `EXIT_BUG`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from alm import shown

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: not finished, and the same command goes on
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class AlmError(Exception):
    """What is wrong and where, as one sentence; `hint` is a command to paste, or None."""

    exit_code = EXIT_FAILURE

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Callable[..., AlmError], tuple[Any, ...], dict[str, Any]]:  # Any: as pickle has it
        # A worker's error reaches its parent with its hint and its exit code.
        return _again, (type(self), self.message), dict(self.__dict__)


class ConfigError(AlmError):
    """A configuration file, a `--set` or a command line that cannot be used."""

    exit_code = EXIT_USAGE


class InputError(AlmError):
    """Input that cannot be read as what it should be."""


class ArtifactError(AlmError):
    """An artifact that is missing, damaged, or made from other inputs than its neighbour."""


class StoppedError(AlmError):
    """A stage ended early because a signal or a time limit asked for it, after saving what it had."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = EXIT_INTERRUPTED) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class EchoedError(AlmError):
    """What another rank of the same run tells, in words and by its exit code: nothing is shown of it here."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def _again(kind: type[AlmError], message: str) -> AlmError:
    return kind(message)


def shell(*words: str | os.PathLike[str]) -> str:
    """A command line to paste, each word quoted where a shell would take it apart: for hints."""
    return " ".join(shown.word(os.fspath(word)) for word in words)


def quoted(value: object) -> str:
    """One word of a command line to paste, quoted where a shell would take it apart: for hints."""
    return shown.word(str(value))
