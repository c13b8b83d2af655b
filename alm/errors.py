"""Errors a user can cause, with their exit codes.

    AlmError              1   a failure, described by its message
    |-- ConfigError       2   a configuration or a command line is wrong
    |-- InputError        1   text, shards or checkpoints that cannot be used
    |-- ArtifactError     1   an artifact is missing, damaged or made from other inputs
    `-- StoppedError      130 interrupted, 143 terminated, 75 to be started again; the state is saved first

Anything else that escapes is a bug and exits with `EXIT_BUG`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alm import shown

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: not finished, and the same command continues
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class AlmError(Exception):
    """A failure: one sentence says what is wrong and where; `hint` is a command to paste, or None."""

    exit_code = EXIT_FAILURE

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Callable[..., AlmError], tuple[Any, ...], dict[str, Any]]:  # Any: as pickle has it
        # A worker's error has to reach its parent with its hint and exit code.
        return _again, (type(self), self.message), dict(self.__dict__)


class ConfigError(AlmError):
    """A configuration file, a `--set` or a command line that cannot be used."""

    exit_code = EXIT_USAGE


class InputError(AlmError):
    """Input that cannot be read in its expected format."""


class ArtifactError(AlmError):
    """An artifact that is missing, damaged, or made from other inputs."""


class StoppedError(AlmError):
    """A stage that a signal or a time limit ended early, after it saved its state."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = EXIT_INTERRUPTED) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class EchoedError(AlmError):
    """An error that another rank of the same run reports, with its exit code: this rank prints nothing."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def _again(kind: type[AlmError], message: str) -> AlmError:
    return kind(message)


def shell(*words: str | os.PathLike[str]) -> str:
    """Return a command line to paste into a shell, each word quoted if needed: for hints."""
    return " ".join(shown.word(os.fspath(word)) for word in words)


def quoted(value: object) -> str:
    """Return one word of a command line to paste into a shell, quoted if needed: for hints."""
    return shown.word(str(value))


# What makes the artifacts that a stage reads by default.
_MAKERS = {
    "data/clean": "run `alm corpus prepare my-texts/` for your text, or `alm corpus prepare --src tales` for stories",
    "artifacts": "run `alm tokenizer train`",
    "data/packed": "run `alm pack`",
    "runs": "run `alm pretrain`",
}


def absent_hint(path: Path) -> str:
    """Return the hint for a `path` that does not exist: the command that makes it, or one that lists what is there."""
    for place, command in _MAKERS.items():
        if Path(place) in (path, *path.parents) and not os.path.lexists(place):
            return command
    there = next((folder for folder in path.parents if folder.is_dir()), Path())
    return f"run `{shell('ls', there)}` to see what is there"
