"""Reads text in compiled code: classes of characters, ends of words, and hashes of words.

Text is UTF-8 in an array of bytes, with eight readable bytes after its end.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core.typing.templates import Signature
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from alm.tokenizers import _unicode
from alm.tokenizers._kernels.compiling import inlined, kernel
from alm.tokenizers.pretokenize import tables

OTHER, LETTER, NUMBER, SPACE, NEWLINE = range(5)

PATTERN_CODES = {"qwen2": 1, "cl100k": 3, "gpt2": 0, "smollm": -1, "sentencepiece": -2}
"""Codes of the splits for `word_end`: the longest run of digits in a word, 0 for the rules of GPT-2, -1 for these rules
after single digits, and -2 for words that begin with their blanks."""

_BLANKS = -2

_ONE = np.uint64(1)
ODD = np.uint64(0x9E3779B97F4A7C15)
"""A multiplier that spreads bits."""

_OTHER_ODD = np.uint64(0xC2B2AE3D27D4EB4F)

_HIGH_BITS = np.uint64(0x8080808080808080)
_FIRST_HIGH_BIT = np.uint64(0x80)
_SECOND_HIGH_BIT = np.uint64(0x8000)
_LOW_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
_LOWER_CASE = np.uint64(0x2020202020202020)
_FROM_A = np.uint64(0x1F1F1F1F1F1F1F1F)  # 0x80 - ord("a"): adding it sets the high bit from "a" on
_PAST_Z = np.uint64(0x0505050505050505)  # 0x7F - ord("z"): adding it sets the high bit after "z"


@functools.cache
def classes(pattern: str) -> npt.NDArray[np.uint8]:
    """Return the class of each code point in the split `pattern`, from the pinned tables."""
    table = np.zeros(0x110000, dtype=np.uint8)
    for ranges, class_ in zip(tables(pattern).values(), (LETTER, NUMBER, SPACE), strict=True):
        for first, last in _unicode.ranges(ranges):
            table[first : last + 1] = class_
    table[[ord("\r"), ord("\n")]] = NEWLINE
    return table


@intrinsic
def load_8(typing_context: Any, data: Any, at: Any) -> tuple[Signature, Any]:
    """Load the eight bytes at `data[at]` as one little-endian integer, aligned or not."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
        return builder.load(place, align=1)

    return types.uint64(data, types.int64), generate


@intrinsic
def trailing_zeros(typing_context: Any, value: Any) -> tuple[Signature, Any]:
    """Count the trailing zero bits of `value`; 64 for 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@inlined
def class_and_length(data, at, classes):
    """Return the class of the character at `at`, plus 8 times its length in bytes."""
    byte = np.int64(data[at])
    if byte < 0x80:
        return np.int64(classes[byte]) | 8
    second = np.int64(data[at + 1]) & 0x3F
    if byte < 0xE0:
        return np.int64(classes[((byte & 0x1F) << 6) | second]) | 16
    third = np.int64(data[at + 2]) & 0x3F
    if byte < 0xF0:
        return np.int64(classes[((byte & 0x0F) << 12) | (second << 6) | third]) | 24
    fourth = np.int64(data[at + 3]) & 0x3F
    return np.int64(classes[((byte & 0x07) << 18) | (second << 12) | (third << 6) | fourth]) | 32


@inlined
def ascii_letters_of(eight):
    """Return a word with the high bit set in each of the eight bytes that is an ASCII letter."""
    lower = (eight | _LOWER_CASE) & _LOW_BITS
    return (lower + _FROM_A) & ~(lower + _PAST_Z) & ~eight & _HIGH_BITS


@inlined
def letters_end(data, at, stop, classes):
    """Return the end of the run of letters that continues at `at`."""
    while at < stop:
        if data[at] < 0x80 and classes[data[at]] != LETTER:
            return at
        ascii_letters = trailing_zeros(ascii_letters_of(load_8(data, at)) ^ _HIGH_BITS) >> 3
        at += ascii_letters
        if ascii_letters > 0:
            continue
        found = class_and_length(data, at, classes)
        if found & 7 != LETTER:
            return at
        at += found >> 3
    return stop


@kernel
def run_end(data, at, stop, classes, class_, most):
    """Return the end of the run of at most `most` characters of `class_` that continues at `at`."""
    while at < stop and most > 0:
        found = class_and_length(data, at, classes)
        if found & 7 != class_:
            break
        at += found >> 3
        most -= 1
    return at


@kernel
def contraction_end(data, at, stop, any_case):
    """Return the end of 's 't 're 've 'm 'll 'd with its apostrophe at `at`; `at` if there is none."""
    if at + 1 >= stop:
        return at
    first, case = np.int64(data[at + 1]), np.int64(0x20 if any_case else 0)
    one = first | case
    if one == 0x73 or one == 0x64 or one == 0x6D or one == 0x74:  # s d m t
        return at + 2
    if at + 2 >= stop:
        return at
    two = np.int64(data[at + 2]) | case
    if any_case and first == 0xC5 and data[at + 2] == 0xBF:  # U+017F equals s when case is ignored
        return at + 3
    if (one == 0x6C and two == 0x6C) or ((one == 0x76 or one == 0x72) and two == 0x65):  # ll ve re
        return at + 3
    return at


@kernel
def spaces_end(data, at, stop, classes, pattern):
    """Return the end of the word of white space at `at`.

    With `pattern` above 0, the word ends after the last newline of the run, if it has one. Otherwise the last space
    belongs to the word that follows the run, unless it is the only one or no word follows. Below 0, no space belongs to
    a number.
    """
    end, last, behind_newline = at, at, at
    while end < stop:
        found = class_and_length(data, end, classes)
        if found & 7 < SPACE:
            if pattern < 0 and found & 7 == NUMBER:
                last = at
            break
        last = end
        end += found >> 3
        if found & 7 == NEWLINE:
            behind_newline = end
    if pattern > 0 and behind_newline > at:
        return behind_newline
    return last if end < stop and last > at else end


@kernel
def blanks_and_rest_end(data, at, stop):
    """Return the end of the blanks at `at` and of what follows up to the next blank."""
    while at < stop and data[at] == 0x20:
        at += 1
    while at < stop and data[at] != 0x20:
        at += 1
    return at


@inlined
def word_end(data, at, stop, classes, pattern):
    """Return the end of the word at `at`. `stop` is the end of the text, `pattern` one of `PATTERN_CODES`."""
    if pattern == _BLANKS:
        return blanks_and_rest_end(data, at, stop)
    byte = data[at]
    # Most words are a few ASCII letters, with or without a blank before them, which one load of eight bytes decides.
    letters = ascii_letters_of(load_8(data, at))
    if byte == 0x20 and letters & _SECOND_HIGH_BIT:
        letters |= _FIRST_HIGH_BIT
    if letters & _FIRST_HIGH_BIT:
        return letters_end(data, at + (trailing_zeros(letters ^ _HIGH_BITS) >> 3), stop, classes)
    if byte == 0x27:  # apostrophe
        end = contraction_end(data, at, stop, pattern > 0)
        if end > at:
            return end
    found = class_and_length(data, at, classes)
    first, behind = found & 7, at + (found >> 3)
    if first == LETTER:
        return letters_end(data, behind, stop, classes)
    if first == NUMBER:
        return run_end(data, behind, stop, classes, NUMBER, stop if pattern == 0 else max(pattern - 1, 0))
    second, longer = -1, behind
    if first != NEWLINE and behind < stop:
        found = class_and_length(data, behind, classes)
        second, longer = found & 7, behind + (found >> 3)
    is_blank = byte == 0x20
    if second == LETTER and (is_blank or pattern > 0):
        return letters_end(data, longer, stop, classes)
    if second == NUMBER and is_blank and pattern == 0:
        return run_end(data, longer, stop, classes, NUMBER, stop)
    if first == OTHER or (is_blank and second == OTHER):
        end = run_end(data, behind, stop, classes, OTHER, stop)
        while pattern > 0 and end < stop and (data[end] == 0x0A or data[end] == 0x0D):
            end += 1
        return end
    return spaces_end(data, at, stop, classes, pattern)


@inlined
def mixed(value):
    """Mix the bits of a 64-bit integer; a bijection."""
    value ^= value >> np.uint64(32)
    value *= _OTHER_ODD
    return value ^ (value >> np.uint64(29))


@inlined
def hash_span(data, at, length):
    """Return a 64-bit hash of a word. Words of the same length up to eight bytes never collide."""
    value = np.uint64(length) * ODD
    while length >= 8:
        value = mixed(value ^ load_8(data, at))
        at += 8
        length -= 8
    if length > 0:
        value = mixed(value ^ (load_8(data, at) & ((_ONE << np.uint64(8 * length)) - _ONE)))
    return value


@inlined
def equal_spans(left, at, right, start, length):
    """Whether two words of the same length have the same bytes."""
    while length >= 8:
        if load_8(left, at) != load_8(right, start):
            return False
        at += 8
        start += 8
        length -= 8
    if length == 0:
        return True
    kept = (_ONE << np.uint64(8 * length)) - _ONE
    return ((load_8(left, at) ^ load_8(right, start)) & kept) == np.uint64(0)
