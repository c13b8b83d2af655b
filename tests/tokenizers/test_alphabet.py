from __future__ import annotations

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from alm.tokenizers import alphabet


def test_each_byte_is_written_as_the_library_writes_it() -> None:
    byte_level = ByteLevel(add_prefix_space=False, use_regex=False)
    assert set(alphabet.characters()) == set(ByteLevel.alphabet())
    for point in (*range(0x80), 0xE9, 0x3BB, 0x20AC, 0xFFFD, 0x1F44D):
        ((written, _),) = byte_level.pre_tokenize_str(chr(point))
        assert alphabet.to_characters(chr(point).encode()) == written


def test_characters_and_bytes_are_inverse() -> None:
    every_byte = bytes(range(256))
    assert alphabet.to_bytes(alphabet.to_characters(every_byte)) == every_byte


def test_ids_follow_the_written_character_not_the_byte() -> None:
    # By code point: ! is 0x21 and first; the 68 hidden bytes, written from U+0100 on, are last.
    assert alphabet.ids()[ord("!")] == 16
    assert alphabet.ids()[ord("~")] == 16 + 0x7E - 0x21
    assert alphabet.ids()[0x00] == 16 + 256 - 68
    assert alphabet.ids()[0xAD] == alphabet.FIRST_MERGE_ID - 1 == 271
    assert sorted(alphabet.ids()) == list(range(16, 272))


def test_a_character_of_no_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="stands for no byte"):
        alphabet.to_bytes("日")
