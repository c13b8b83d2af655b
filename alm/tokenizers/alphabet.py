"""The alphabet of words: bytes, written as printable characters in a byte-level `tokenizer.json`, or characters.

GPT-2 chose the mapping. A byte that is a printable Latin-1 character stands for itself; the others take the code points
from 256 up, in order. So a token that holds half a character can still be written as text.
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
"""First id of the characters in a model over characters, after the unknown token and the bytes."""


@functools.cache
def characters() -> tuple[str, ...]:
    """Return the character of each byte, by byte value."""
    printable = {byte for bytes_ in _PRINTABLE for byte in bytes_}
    hidden = [byte for byte in range(256) if byte not in printable]
    stand_ins = {byte: _FIRST_STAND_IN + place for place, byte in enumerate(hidden)}
    return tuple(chr(stand_ins.get(byte, byte)) for byte in range(256))


@functools.cache
def in_id_order() -> bytes:
    """Return the 256 bytes in the order of their ids: by the code point of their characters."""
    return bytes(sorted(range(256), key=characters().__getitem__))


@functools.cache
def ids() -> tuple[int, ...]:
    """Return the id of each byte, by byte value."""
    return tuple(FIRST_BYTE_ID + in_id_order().index(byte) for byte in range(256))


def to_characters(token: bytes) -> str:
    """Return `token` as `tokenizer.json` writes it.

    >>> to_characters(b" caf\\xc3\\xa9")
    'ĠcafÃ©'
    """
    return token.decode("latin-1").translate(_to_characters())


def to_bytes(token: str) -> bytes:
    """Return the bytes that `token` stands for. Raises `ValueError` for a character that does not stand for a byte."""
    by_character = _to_bytes()
    try:
        return bytes([by_character[character] for character in token])
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} stands for no byte") from error


def is_spelled(token: str) -> bool:
    """Whether each character of `token` stands for a byte."""
    return _to_bytes().keys() >= {*token}


@functools.cache
def _to_characters() -> dict[int, str]:
    return dict(enumerate(characters()))


@functools.cache
def _to_bytes() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(characters())}


def covering(words: Words, share: float, *, most: int) -> list[str]:
    """Return the most common characters that make up `share` of the text, at most `most`, sorted by code point.

    Ties are broken by code point. Surrogates do not count as characters.
    """
    counts = _character_counts(words)
    order = np.lexsort((np.arange(len(counts)), -counts))
    order = order[: np.count_nonzero(counts)]
    reached = np.cumsum(counts[order])
    # In integers, so that rounding cannot drop a character at a share of 1.0.
    needed = int(np.searchsorted(reached, share * reached[-1], side="left")) + 1 if len(order) else 0
    return [chr(point) for point in sorted(order[: min(needed, most)].tolist())]


def _character_counts(words: Words) -> np.ndarray:
    """Return how often each code point occurs in the text."""
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
