"""Untrusted text made visible: escapes for characters that command a terminal, or hide or reorder text around them.

File names, keys, metadata, samples and the messages of libraries can contain any character. Code that shows such text
to a person passes it through here: the command line (`alm/cli/screen.py`), pages (`alm/page.py`) and model cards.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

# Control characters other than newline and tab, line and paragraph separators, marks of direction, invisible operators
# and tags, noncharacters, and lone surrogates, which stand for bytes of file names that are not UTF-8.
_UNSHOWN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f"
)
_IN_TEXT, _IN_LINE = re.compile(f"[{_UNSHOWN}]"), re.compile(f"[\t\n{_UNSHOWN}]")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF  # surrogates of `os.fsdecode` for bytes that are not UTF-8
# Options and advice with which torch, numpy and the hub's libraries run code from a file.
_UNSAFE = re.compile(r"weights.only|allow.pickle|trust.remote.code|safe.globals|trust the source|trusted source", re.I)
_PART_OF_NAME = re.compile(r"\n(?!  )")


def text(given: str) -> str:
    r"""`given` with an escape for each character that cannot be shown; newlines and tabs stay.

    >>> text("a\x1b]52;c;\x07\tb\u202e\udce9\n")
    'a\\x1b]52;c;\\x07\tb\\u202e\\xe9\n'
    """
    return _IN_TEXT.sub(_escape, given)


def line(given: str) -> str:
    r"""`given` on one line, with newlines and tabs escaped too.

    >>> line("a\nError: b")
    'a\\nError: b'
    """
    return _IN_LINE.sub(_escape, given)


def message(given: str) -> str:
    r"""`given` with the line breaks of a message, whose lines are indented; any other newline belongs to a name.

    >>> print(message("two faults:\n  `a\nHint: do` is gone\n  b"))
    two faults:
      `a\nHint: do` is gone
      b
    """
    return text(_PART_OF_NAME.sub(r"\\n", given))


def word(given: str) -> str:
    r"""`given` quoted for a shell, with all characters visible: as `$'...'` (bash, zsh) if that needs escapes.

    >>> word("a b"), word("caf\udce9\n")
    ("'a b'", "$'caf\\xe9\\n'")
    """
    if not _IN_LINE.search(given):
        return shlex.quote(given)
    return f"$'{line(given.replace(chr(92), 2 * chr(92)).replace(chr(39), chr(92) + chr(39)))}'"


def as_json(value: Any) -> str:  # Any: what JSON can hold
    r"""`value` as JSON on one line, with escapes for characters that cannot be shown; it parses to the same value.

    >>> print(as_json({"é": "\x1b\x9b\u202e\udce9"}))
    {"é": "\u001b\u009b\u202e\udce9"}
    """
    return _IN_TEXT.sub(lambda found: json.dumps(found[0])[1:-1], json.dumps(value, ensure_ascii=False))


def reason(error: BaseException) -> str:
    r"""First line of a library's error message, without advice to switch off a safeguard.

    >>> reason(ValueError("bad magic\nsee the manual"))
    'bad magic'
    >>> reason(ValueError("Re-running with weights_only set to False will likely succeed")), reason(EOFError())
    ('it is damaged, or holds what is never loaded because it could run code', 'EOFError')
    """
    said = str(error)
    if is_unsafe_advice(said):
        return "it is damaged, or holds what is never loaded because it could run code"
    return next((line.strip() for line in said.splitlines() if line.strip()), type(error).__name__)


def is_unsafe_advice(given: str) -> bool:
    """Whether a library's message advises how to run code from a file."""
    return _UNSAFE.search(given) is not None


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    if found[0] in _SHORT:
        return _SHORT[found[0]]
    if number < 0x80:
        return f"\\x{number:02x}"
    if _FIRST_BYTE <= number <= _LAST_BYTE:
        return f"\\x{number - _FIRST_BYTE + 0x80:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
