"""Bytes written as printable characters: the alphabet of every byte-level `tokenizer.json`.

GPT-2 chose it: a byte that is a printable Latin-1 character stands for itself, and the others
take the code points from 256 on, in order. So a token that is half a character is still text.
"""

from __future__ import annotations

import functools

from alm.tokenizers.special import SPECIALS

_PRINTABLE = (range(0x21, 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100))
_FIRST_STAND_IN = 0x100

FIRST_BYTE_ID = len(SPECIALS)
FIRST_MERGE_ID = FIRST_BYTE_ID + 256


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
