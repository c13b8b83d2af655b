"""What words are made of: bytes, written as printable characters in every byte-level `tokenizer.json`, or characters.

GPT-2 chose it: a byte that is a printable Latin-1 character stands for itself, and the others
take the code points from 256 on, in order. So a token that is half a character is still text.
"""

from __future__ import annotations

import functools

import numpy as np

from alm.tokenizers.special import SPECIALS
from alm.tokenizers.words import Words

_PRINTABLE = (range(0x21, 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100))
_FIRST_STAND_IN = 0x100

FIRST_BYTE_ID = len(SPECIALS)
FIRST_MERGE_ID = FIRST_BYTE_ID + 256
FIRST_CHARACTER_ID = FIRST_BYTE_ID + 1 + 256
"""Where the characters begin in a model over characters, behind the unknown token and the bytes."""


@functools.cache
def characters() -> tuple[str, ...]:
    """The character of each byte, by byte value."""
    printable = {byte for bytes_ in _PRINTABLE for byte in bytes_}
    hidden = [byte for byte in range(256) if byte not in printable]
    stand_ins = {byte: _FIRST_STAND_IN + place for place, byte in enumerate(hidden)}
    return tuple(chr(stand_ins.get(byte, byte)) for byte in range(256))


@functools.cache
def in_id_order() -> bytes:
    """The 256 bytes as their ids follow each other: by the code point of their characters."""
    return bytes(sorted(range(256), key=characters().__getitem__))


@functools.cache
def ids() -> tuple[int, ...]:
    """The id of each byte, by byte value."""
    return tuple(FIRST_BYTE_ID + in_id_order().index(byte) for byte in range(256))


def to_characters(token: bytes) -> str:
    """`token` as `tokenizer.json` writes it.

    >>> to_characters(b" caf\\xc3\\xa9")
    'ĠcafÃ©'
    """
    return token.decode("latin-1").translate(_to_characters())


def to_bytes(token: str) -> bytes:
    """The bytes that `token` stands for; ValueError when it holds a character that is no byte's."""
    by_character = _to_bytes()
    try:
        return bytes([by_character[character] for character in token])
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} stands for no byte") from error


@functools.cache
def _to_characters() -> dict[int, str]:
    return dict(enumerate(characters()))


@functools.cache
def _to_bytes() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(characters())}


def covering(words: Words, share: float, *, most: int) -> list[str]:
    """The commonest characters that make up `share` of all there are in the text, by code point; `most` at most.

    Equally common ones come in by code point. Surrogates are no characters.
    """
    counts = _character_counts(words)
    order = np.lexsort((np.arange(len(counts)), -counts))
    order = order[: np.count_nonzero(counts)]
    reached = np.cumsum(counts[order])
    # Whole counts, so that 1.0 takes every character in.
    needed = int(np.searchsorted(reached, share * reached[-1], side="left")) + 1 if len(order) else 0
    return [chr(point) for point in sorted(order[: min(needed, most)].tolist())]


def _character_counts(words: Words) -> np.ndarray:
    """How often each code point occurs in the text."""
    counts = np.zeros(0x110000, dtype=np.int64)
    total = int(words.offsets[-1])
    begins = (words.data[:total] & 0xC0) != 0x80
    points = np.frombuffer(
        words.data[:total].tobytes().decode("utf-8", "surrogatepass").encode("utf-32-le", "surrogatepass"), dtype="<u4"
    )
    sizes = np.diff(np.concatenate([[0], np.cumsum(begins)])[words.offsets])
    np.add.at(counts, points, np.repeat(words.counts, sizes))
    counts[0xD800:0xE000] = 0
    return counts
