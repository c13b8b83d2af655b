"""The only writer to stdout and stderr: untrusted text never reaches a terminal as a command.

Commands print through `echo_err`, `write` and `write_exact`, or through the console of `alm/cli/console.py`. Everything
else that is printed while a command runs (Typer, warnings, tracebacks, libraries) goes through streams of `guarding`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast

from alm import shown


def echo_err(text: str) -> None:
    """Print lines for the user on stderr."""
    _print(text + "\n", sys.stderr)


def write(text: str) -> None:
    """Print lines to read on stdout."""
    _write(shown.text(text) + "\n")


def write_exact(text: str) -> None:
    """Print text unchanged on stdout, as UTF-8; on a terminal, with escapes for characters that cannot be shown."""
    _write(shown.text(text) if sys.stdout.isatty() else text)


def _write(text: str) -> None:
    # Data is UTF-8 in every locale; a terminal gets its own encoding.
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
    """Escape everything that is written to `sys.stdout` and `sys.stderr` meanwhile, as `echo_err` does."""
    before = sys.stdout, sys.stderr
    guards = cast("tuple[TextIO, TextIO]", (_Guard(before[0]), _Guard(before[1])))
    sys.stdout, sys.stderr = guards
    try:
        yield
    finally:  # a stream that other code has installed meanwhile stays
        if sys.stdout is guards[0]:
            sys.stdout = before[0]
        if sys.stderr is guards[1]:
            sys.stderr = before[1]


def unguarded(stream: TextIO) -> TextIO:
    """`stream` for code that writes commands to the terminal: text is only made encodable."""
    while isinstance(stream, _Guard):
        stream = stream.stream
    return cast("TextIO", _Encodable(stream))


class _Encodable:
    """A stream that does not fail on characters missing from its encoding."""

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
    """A stream that escapes commands to the terminal."""

    # Typer bypasses a stream that reports ASCII; this one takes any text.
    encoding, errors = "utf-8", "replace"

    def write(self, text: str) -> int:
        return super().write(shown.text(text))
