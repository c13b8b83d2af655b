"""Streaming of the values in a JSON text, one by one, with about one value in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from alm.corpus.document import utf8_bytes
from alm.corpus.rows import EXCERPT_CHARACTERS
from alm.files import ROW_DECODER

_CHUNK_BYTES = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")
_BAD_BYTE = re.compile("[\udc80-\udcff]")
_OUTSIDE = re.compile(r'["\[\]{},]')
# A string cannot contain a line end: if one seems to, its closing quote is missing.
_INSIDE = re.compile(r'\\.|["\n]')
# Within this distance from the end of the data, a value may continue and an error may be spurious: a number, a word
# or an escape may be cut in two.
_CUT_CHARACTERS = 16
_scan = ROW_DECODER.raw_decode


class BadValue(NamedTuple):
    """Text that is not JSON: the problem, the number of its character, and the bytes that were skipped."""

    reason: str
    problem: str
    at: int
    size: int
    beginning: str


class LongValue(NamedTuple):
    """A value that is too long: its size in bytes, and its beginning."""

    size: int
    beginning: str


def end_of_value(text: str) -> int:
    """Return how far `text` is a JSON value, or the beginning of one."""
    try:
        return _scan(text)[1]
    except json.JSONDecodeError as error:
        return error.pos + error.msg.startswith("Unterminated string")
    except (ValueError, RecursionError):
        return 0


def json_values(file: BinaryIO, *, longest: int) -> Iterator[Any]:  # Any: JSON
    """Yield the elements of the array in `file`, or else the values that follow one another in it.

    A value of more than `longest` bytes is skipped and yielded as `LongValue`. Text that is not JSON is skipped, in an
    array up to the comma or bracket that seems to end it, otherwise to the end. `file` is UTF-8.
    """
    text = _Text(file, longest)
    if text.next() == "[":
        text.position += 1
        yield from _elements(text)
    else:
        while text.next():
            yield text.value(is_element=False)
    if text.next():
        yield text.bad("there is more text after the end", to_the_end=True)


def _elements(text: _Text) -> Iterator[Any]:
    """Yield the elements of the array whose opening bracket was just read, and read its closing bracket."""
    value = None
    while text.next() not in ("]", ""):
        value = text.value(is_element=True)
        yield value
        following = text.next()
        if following == ",":
            text.position += 1
        elif following != "]":
            break
    if text.next() == "]":
        text.position += 1
    elif text.next() or not isinstance(value, BadValue):
        yield text.bad("a comma or the end of the array is missing here", to_the_end=True)


class _Text:
    """A window on the text, and the position in it."""

    def __init__(self, file: BinaryIO, longest: int) -> None:
        self._file = file
        self._longest = longest
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._data = ""
        self._passed = 0  # characters before `_data`
        self._is_ended = False
        self._has_bad_bytes = False
        self.position = 0

    def next(self) -> str:
        """Skip white space, and return the next character, or an empty string at the end."""
        while True:
            found = _SPACE.match(self._data, self.position)
            assert found is not None
            self.position = found.end()
            if self.position < len(self._data) or self._is_ended:
                return self._data[self.position : self.position + 1]
            self._fill()

    def value(self, *, is_element: bool) -> Any:
        """Read the value that begins here; a `BadValue` or `LongValue` may take its place."""
        while True:
            try:
                value, end = _scan(self._data, self.position)
            except (ValueError, RecursionError) as error:
                if self._is_ended or not self._may_be_cut(error):
                    at = error.pos if isinstance(error, json.JSONDecodeError) else self.position
                    problem = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                    return self.bad(problem, at=at, to_the_end=not is_element)
            else:
                if end + _CUT_CHARACTERS < len(self._data) or self._is_ended:
                    return self._taken(value, end)
            if len(self._data) - self.position > self._longest:
                return LongValue(*self._pass_over(is_element=is_element))
            self._fill()

    def bad(self, problem: str, *, at: int | None = None, to_the_end: bool) -> BadValue:
        """Skip text that is not JSON, and return the `BadValue` for it."""
        place = self._passed + (self.position if at is None else at)
        size, beginning = self._pass_rest() if to_the_end else self._pass_over(is_element=True)
        return BadValue("bad_json", problem, place, size, beginning)

    def _taken(self, value: Any, end: int) -> Any:
        start, self.position = self.position, end
        if self._has_bad_bytes and (found := _BAD_BYTE.search(self._data, start, end)):
            size, beginning = utf8_bytes(self._data[start:end]), self._data[start : start + EXCERPT_CHARACTERS]
            return BadValue("bad_utf8", "a byte is not UTF-8", self._passed + found.start(), size, beginning)
        if end - start > self._longest:
            return LongValue(utf8_bytes(self._data[start:end]), self._data[start : start + EXCERPT_CHARACTERS])
        return value

    def _may_be_cut(self, error: Exception) -> bool:
        return isinstance(error, json.JSONDecodeError) and (
            error.msg.startswith("Unterminated string") or error.pos >= len(self._data) - _CUT_CHARACTERS
        )

    def _pass_rest(self) -> tuple[int, str]:
        """Skip the rest of the text. Return its size and its beginning."""
        beginning, size = self._data[self.position : self.position + EXCERPT_CHARACTERS], 0
        while self.position < len(self._data) or not self._is_ended:
            size += utf8_bytes(self._data[self.position :])
            self.position = len(self._data)
            self._fill()
        return size, beginning

    def _pass_over(self, *, is_element: bool) -> tuple[int, str]:
        """Skip one value by its brackets and quotes. Return its size and its beginning.

        An element ends before a comma or bracket, other values with the bracket or quote that closes them.
        """
        beginning, size = self._data[self.position : self.position + EXCERPT_CHARACTERS], 0
        depth, is_inside, at = 0, False, self.position
        while True:
            found = (_INSIDE if is_inside else _OUTSIDE).search(self._data, at)
            if found is None:
                # A backslash at the end belongs to the next character.
                at = len(self._data) - (is_inside and self._data.endswith("\\", at) and not self._is_ended)
                size += utf8_bytes(self._data[self.position : at])
                self.position = at
                if self._is_ended:
                    return size, beginning
                self._fill()
                at = self.position
                continue
            at, token = found.end(), found[0]
            if token in '"\n':
                is_inside = not is_inside
            elif not is_inside:
                if depth == 0 and token in ",]":
                    at = found.start()
                    break
                depth = max(0, depth + {"[": 1, "{": 1, ",": 0}.get(token, -1))
            if not is_element and depth == 0 and not is_inside and token in '"]}':
                break
        size += utf8_bytes(self._data[self.position : at])
        self.position = at
        return size, beginning

    def _fill(self) -> None:
        """Read as much again as is left: doubling the window keeps the time for a long value linear."""
        rest = self._data[self.position :]
        data = self._file.read(max(_CHUNK_BYTES, len(rest)))
        self._passed += self.position
        self._is_ended = not data
        self._data, self.position = rest + self._decoded(data), 0

    def _decoded(self, data: bytes) -> str:
        """Decode `data`, with lone surrogates in place of bytes that are not UTF-8."""
        try:
            return self._decoder.decode(data, final=not data)
        except UnicodeDecodeError:
            self._has_bad_bytes = True
            self._decoder.errors = "surrogateescape"
            return self._decoder.decode(data, final=not data)
