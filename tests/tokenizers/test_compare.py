"""Comparing tokenizers, and advice on the size of a vocabulary: by hand, and against training anew."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from alm.errors import InputError
from alm.tokenizers import compare, vocabulary
from alm.tokenizers.compare import measure, open_tokenizer
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.models import bpe
from alm.tokenizers.pretokenize import count_words
from alm.tokenizers.probes import PROBES
from alm.tokenizers.words import Words

A, B = (bpe.base_tokens().index(letter) for letter in (b"a", b"b"))


class ByCharacter:
    """One id a character."""

    vocab_size = 128

    def count_ids(self, texts: list[str]) -> np.ndarray:
        return np.bincount([ord(character) for text in texts for character in text], minlength=self.vocab_size)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_LEAST_SECONDS", 0.001)


def test_what_is_measured_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_COMMONEST", 1)
    found = measure("name", ByCharacter(), {"x": ["aab", "a"], "empty": [""], "y": ["bc"]})
    assert found.tokens == {"x": 4, "empty": 0, "y": 2}
    assert found.bytes == {"x": 4, "empty": 0, "y": 2}
    assert (found.used, found.commonest_share) == (3, 0.5)  # a b c; three a's of six
    assert (found.bytes_per_token("x"), found.bytes_per_token("empty"), found.bytes_per_token()) == (1.0, 0.0, 1.0)
    assert found.megabytes_per_second > 0


def test_bytes_are_bytes_and_tokens_those_of_the_tokenizer(tmp_path: Path) -> None:
    Tokenizer.from_merges([(A, B)]).save(tmp_path / "t.json")
    found = measure("t", open_tokenizer(tmp_path / "t.json"), {"x": ["abab é"]})
    assert (found.bytes["x"], found.tokens["x"], found.used) == (7, 5, 4)  # ab ab space C3 A9


def test_a_tokenizer_of_another_make_goes_through_the_library(tmp_path: Path) -> None:
    other = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "?": 2, "<s>": 3}, unk_token="?"))
    other.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    other.add_special_tokens(["<s>"])
    other.save(str(tmp_path / "other.json"))
    opened = open_tokenizer(tmp_path / "other.json")
    assert opened.vocab_size == 4
    assert opened.count_ids(["a b a c", "<s>"]).tolist() == [2, 1, 4, 0]  # c < s > are unknown: text is text
    with pytest.raises(InputError, match="no tokenizer found"):
        open_tokenizer(tmp_path / "absent.json")


def test_without_the_library_the_refusal_says_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.json").write_text(json.dumps({"model": {"type": "WordLevel"}}))
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(InputError, match="not a tokenizer that `alm` can use") as caught:
        open_tokenizer(tmp_path / "other.json")
    assert "pip install tokenizers" in str(caught.value.hint)


def test_smaller_vocabularies_are_those_that_training_would_give(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*PROBES.values()]
    words = Words.of(count_words(texts, "qwen2"))
    sizes = (300, 400, 500)
    monkeypatch.setattr(vocabulary, "_SIZES", (100, 272, 300, 400, 512, 1024))
    trained = [Tokenizer.from_merges(bpe.learn_merges(words, bpe.base_tokens(), vocab_size=size)) for size in sizes]
    found = vocabulary.size_options(trained[-1], texts, lambda size: vocabulary.Cost(10 * size, size, 1000.0 + size))
    assert [choice.vocab_size for choice in found] == [*sizes]
    for choice, tokenizer in zip(found, trained, strict=True):
        tokens = sum(len(tokenizer.encode(text)) for text in texts)
        assert choice.bytes_per_token == sum(len(text.encode()) for text in texts) / tokens
        assert choice.flops_per_byte == (1000 + choice.vocab_size) / choice.bytes_per_token
        assert (choice.parameters, choice.embedding_share) == (10 * choice.vocab_size, 0.1)


def test_how_often_the_rare_ones_occur_by_hand() -> None:
    # Ten merges; the one that is rarer than nine is the second of the ten from below.
    letters = [bpe.base_tokens().index(bytes([byte])) for byte in b"abcdefghij"]
    tokenizer = Tokenizer.from_merges([(letter, letter) for letter in letters])
    text = " ".join(f"{letter * 2} " * (5 + place) for place, letter in enumerate("abcdefghij"))
    (choice,) = vocabulary.size_options(tokenizer, [text], lambda size: vocabulary.Cost(1, 1, 1.0))
    assert choice.rare == 6


def choice(vocab_size: int, flops: float, rare: int) -> vocabulary.SizeOption:
    return vocabulary.SizeOption(vocab_size, 4.0, flops, 1, 0.5, rare)


def test_the_cheapest_is_advised_unless_its_tokens_are_rare() -> None:
    often = vocabulary.OFTEN_ENOUGH
    found = [choice(1, 5.0, 900), choice(2, 3.0, often), choice(3, 2.0, often - 1)]
    assert vocabulary.best(found) is found[1]
    assert vocabulary.best(found[2:]) is found[2]
    assert vocabulary.best([choice(1, 5.0, 0), choice(2, 3.0, 0)]).vocab_size == 1


def test_smaller_vocabularies_need_merges_in_the_order_of_training(tmp_path: Path) -> None:
    c = bpe.base_tokens().index(b"c")
    trained = Tokenizer.from_merges([(A, B), (272, c), (B, c)])  # 272 is `ab`
    trained.save(tmp_path / "t.json")
    document = json.loads((tmp_path / "t.json").read_text("utf-8"))
    ab, abc, bc = document["model"]["merges"]
    orders = {
        True: ([ab, abc, bc], [ab, ["a", "bc"], abc, bc]),  # another way to make `abc`, as SentencePiece lists them
        False: ([abc, ab, bc], [["a", "bc"], ab, bc]),
    }
    for expected, ways in orders.items():
        for merges in ways:
            document["model"]["merges"] = merges
            (tmp_path / "t.json").write_text(json.dumps(document), "utf-8")
            assert vocabulary.has_smaller_sizes(Tokenizer.load(tmp_path / "t.json")) is expected


def test_without_merges_a_vocabulary_has_its_own_size_alone() -> None:
    tokenizer = Tokenizer.from_merges([])
    (option,) = vocabulary.size_options(tokenizer, ["a"], lambda size: vocabulary.Cost(1, 1, 1.0))
    assert (option.vocab_size, option.rare) == (tokenizer.vocab_size, 0)


def test_probes_are_many_kinds_of_text() -> None:
    assert len(PROBES) >= 19
    assert all(len(text.encode()) >= 100 and text.endswith("\n") for text in PROBES.values())
