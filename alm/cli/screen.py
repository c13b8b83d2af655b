"""The one place that writes to stdout and stderr: nothing from a stranger reaches a terminal as a command.

What a command prints goes through `talk`, `write` and `write_exact`, or through the console of `alm/cli/console.py`.
What others print while a command runs (Typer, warnings, tracebacks, libraries) goes through the streams of `guarding`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast

from alm import shown


def talk(text: str) -> None:
    """Lines for the person, on stderr."""
    _print(text + "\n", sys.stderr)


def write(text: str) -> None:
    """Lines to read, on stdout."""
    _write(shown.text(text) + "\n")


def write_exact(text: str) -> None:
    """Text as it is, on stdout: byte for byte in UTF-8, but on a terminal what can be shown."""
    _write(shown.text(text) if sys.stdout.isatty() else text)


def _write(text: str) -> None:
    # Data is UTF-8 whatever the locale; a terminal is asked.
    if sys.stdout.isatty():
        _print(text, sys.stdout)
    else:
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))
        sys.stdout.flush()


def _print(text: str, stream: TextIO) -> None:
    stream.write(_encodable(shown.text(text), stream))
    stream.flush()


def _encodable(text: str, stream: TextIO) -> str:
    """`text` with a question mark for what `stream` cannot encode."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


@contextlib.contextmanager
def guarding() -> Iterator[None]:
    """What anything writes to `sys.stdout` or `sys.stderr` meanwhile is shown as `talk` shows it."""
    before = sys.stdout, sys.stderr
    guards = cast("tuple[TextIO, TextIO]", (_Guard(before[0]), _Guard(before[1])))
    sys.stdout, sys.stderr = guards
    try:
        yield
    finally:  # where somebody else has put another stream there, that one stays
        if sys.stdout is guards[0]:
            sys.stdout = before[0]
        if sys.stderr is guards[1]:
            sys.stderr = before[1]


def unguarded(stream: TextIO) -> TextIO:
    """`stream` for one who writes commands to the terminal: text is only made encodable."""
    while isinstance(stream, _Guard):
        stream = stream.stream
    return cast("TextIO", _Encodable(stream))


class _Encodable:
    """A stream that does not fail where a character is not in its encoding."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:  # Any: all that streams have
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self.stream.write(_encodable(text, self.stream))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


class _Guard(_Encodable):
    """A stream that shows what would command the terminal."""

    # Typer writes around a stream that says it is ASCII, and this one takes any text.
    encoding, errors = "utf-8", "replace"

    def write(self, text: str) -> int:
        return super().write(shown.text(text))
