"""Messages that a person types or pastes in a terminal, of one line or of several."""

from __future__ import annotations

import contextlib
import re
import select
import signal
import sys
from collections.abc import Iterator
from types import FrameType, ModuleType
from typing import Any

from alm.cli import ui

HELP = """\
Several lines: \\ at the end of each, or \"\"\" around them; a paste stays together."""
_QUOTES = '"""'
_OPENS = re.compile(rf"(/\w+[ \t]+)?{_QUOTES}")
_PASTE_SECONDS = 0.02  # between two lines of a paste; no person types that fast
_BRACKETS_FROM = 0x801  # GNU Readline 8.1 hands over pasted lines as one


class Interrupts:
    """Ctrl-C raises `KeyboardInterrupt` where it is allowed, and does nothing elsewhere: nothing is half done."""

    def __init__(self) -> None:
        self._is_allowed = False
        self.line = ""  # what was typed when it was pressed

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle Ctrl-C meanwhile."""
        before = signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Let Ctrl-C end what is done here."""
        self._is_allowed = True
        try:
            yield
        finally:
            self._is_allowed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_allowed:
            self._is_allowed = False
            editor = sys.modules.get("readline")
            self.line = editor.get_line_buffer() if editor else ""
            raise KeyboardInterrupt


class LineInput:
    """Reads messages from the terminal."""

    def __init__(self) -> None:
        self._editor = _editor()
        if self._has_brackets and self._editor is not None:  # Python switches it off for its own prompt
            self._editor.parse_and_bind("set enable-bracketed-paste on")
        self._is_terminal = sys.stdin.isatty() and sys.stdout.isatty()

    def message(self, *, start: str = "") -> str:
        """Return the next message; the line begins with `start` where it can be edited. EOFError at the end."""
        line = self._line("> ", start=start)
        if _OPENS.match(line):
            return _unquoted(self._rest(line, lambda text: text.count(_QUOTES) >= 2))
        if not line.startswith("/") and not self._has_brackets:
            while _is_more_waiting():
                line += "\n" + self._line(". ")
        return self._rest(line, lambda text: not text.endswith("\\")).replace("\\\n", "\n")

    def can_edit(self) -> bool:
        """Whether a line can begin with a text."""
        return self._editor is not None and self._is_terminal

    def _rest(self, text: str, is_complete: Any) -> str:
        while not is_complete(text):
            try:
                text += "\n" + self._line(". ")
            except EOFError:
                break
        return text

    def _line(self, prompt: str, *, start: str = "") -> str:
        if not self._is_terminal:
            ui.echo_err(prompt)
            if line := sys.stdin.readline():
                return line.rstrip("\r\n")
            raise EOFError
        if self._editor is None or not start:
            return input(prompt)
        editor = self._editor
        editor.set_startup_hook(lambda: editor.insert_text(start))
        try:
            return input(prompt)
        finally:
            editor.set_startup_hook(None)

    @property
    def _has_brackets(self) -> bool:
        return getattr(self._editor, "_READLINE_VERSION", 0) >= _BRACKETS_FROM and "GNU" in str(self._editor.__doc__)


def _editor() -> ModuleType | None:
    """Return the line editor of Python, which the Windows console does without."""
    try:
        import readline
    except ImportError:
        return None
    return readline


def _unquoted(text: str) -> str:
    command, _, text = text.partition(_QUOTES)
    return command + text.rstrip().removesuffix(_QUOTES).removeprefix("\n").removesuffix("\n")


def _is_more_waiting() -> bool:
    """Whether lines wait in the terminal, as after a paste."""
    if sys.platform == "win32":
        import msvcrt

        return msvcrt.kbhit()
    return bool(select.select([sys.stdin], [], [], _PASTE_SECONDS)[0])
