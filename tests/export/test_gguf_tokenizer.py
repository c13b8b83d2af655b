"""The tokenizer of a GGUF file, by hand: what is joined first, what is never joined, and what begins a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alm.export import from_gguf_tokenizer
from alm.export.from_gguf_header import Header
from alm.tokenizers import alphabet
from alm.tokenizers.file import Tokenizer

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
BYTES = [alphabet.to_characters(bytes([byte])) for byte in range(256)]
# Of byte-level BPE: `bc` is joined before `ab`, so that merging never makes `abc`, although it is a token.
JOINED = ["bc", "ab", "abc"]
BYTE_LEVEL: dict[str, Any] = {
    "model": "gpt2",
    "tokens": [*BYTES, *JOINED, "<s>", "</s>"],
    "token_type": [NORMAL] * (256 + len(JOINED)) + [CONTROL] * 2,
    "merges": ["b c", "a b", "ab c"],
    "bos_token_id": 256 + len(JOINED),
}
PIECES = ["a", "b", "c", "ab", "bc"]
SENTENCE_PIECES: dict[str, Any] = {
    "model": "llama",
    "tokens": ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES],
    "token_type": [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(PIECES)],
    "scores": [0.0] * 259 + [-9.0, -9.0, -9.0, -1.0, -2.0],
    "add_space_prefix": False,
    "bos_token_id": 1,
}


def read(settings: dict[str, Any], **changes: Any) -> Tokenizer:
    named = {f"tokenizer.ggml.{name}": value for name, value in {**settings, **changes}.items()}
    return from_gguf_tokenizer.read(Header(Path("model.gguf"), named, {}))


@pytest.mark.parametrize("name", from_gguf_tokenizer.SPLITS)
def test_only_splits_of_llama_3_take_a_word_that_is_a_token_as_it_is(name: str) -> None:
    tokenizer = read(BYTE_LEVEL, pre=name)
    spelled = [tokenizer.token_bytes(id_) for id_ in tokenizer.encode("abc")]
    assert spelled == ([b"abc"] if name.startswith("llama") else [b"a", b"bc"])


def test_the_piece_of_the_highest_score_is_joined_first() -> None:
    ids = read(SENTENCE_PIECES).encode("abc")
    assert [SENTENCE_PIECES["tokens"][id_] for id_ in ids] == ["ab", "c"]
    worse = [*SENTENCE_PIECES["scores"][:-2], -2.0, -1.0]
    ids = read(SENTENCE_PIECES, scores=worse).encode("abc")
    assert [SENTENCE_PIECES["tokens"][id_] for id_ in ids] == ["a", "bc"]


@pytest.mark.parametrize(
    ("settings", "usual"),
    [({**SENTENCE_PIECES}, True), ({**BYTE_LEVEL, "pre": "llama-bpe"}, True), ({**BYTE_LEVEL, "pre": "gpt-2"}, False)],
)
def test_a_token_begins_texts_if_the_file_says_so_or_else_as_usual(settings: dict[str, Any], usual: bool) -> None:
    for said, begins in ({}, usual), ({"add_bos_token": True}, True), ({"add_bos_token": False}, False):
        begin = settings["bos_token_id"] if begins else None
        assert read(settings, **said).begin_of_text_id == begin, said
