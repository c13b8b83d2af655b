"""A vocabulary without tokens for some bytes, as SmolLM's: they are dropped, and what is around them joins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library

from alm.tokenizers import alphabet
from alm.tokenizers.file import Tokenizer

GONE = (0x04, 0x1D, 0xC0, 0xF1, 0xF2)
TEXTS = (
    "a\x04b",
    "\x04",
    "\x04\x04 \x1d",
    "th\x1de t\x04he",
    "\U000b1234 x\U000f0000y",
    "\x1d" * 100 + "the",
    "é\x04é",
)


@pytest.mark.usefixtures("way")
def test_bytes_without_a_token_are_dropped(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_merges([(99, 87)])
    tokenizer.save(tmp_path / "all.json")
    document = json.loads((tmp_path / "all.json").read_text("utf-8"))
    by_id = {id_: name for name, id_ in document["model"]["vocab"].items()}
    for byte in GONE:
        id_ = document["model"]["vocab"][alphabet.characters()[byte]]
        by_id[id_] = f"zz{id_}"
    document["model"]["vocab"] = {name: id_ for id_, name in by_id.items()}
    path = tmp_path / "some.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    ours, theirs = Tokenizer.load(path), Library.from_file(str(path))
    for text in TEXTS * 2:
        assert ours.encode(text) == theirs.encode(text).ids
    batch = ours.encode_batch([*TEXTS])
    assert batch.ids.tolist() == [id_ for text in TEXTS for id_ in theirs.encode(text).ids]
