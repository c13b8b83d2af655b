"""BPE over characters, with bytes for the rare ones: the library as oracle, and exact round trips."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers

from alm.errors import ConfigError, InputError
from alm.tokenizers import alphabet
from alm.tokenizers.file import StreamDecoder, Tokenizer
from alm.tokenizers.models import bpe
from alm.tokenizers.pretokenize import count_words
from alm.tokenizers.special import BYTE_NAMES, SPECIALS, UNKNOWN
from alm.tokenizers.words import Words

pytestmark = pytest.mark.usefixtures("way")

FIRST_CHARACTER = 273


def trained(texts: list[str], vocab_size: int, coverage: float = 1.0) -> Tokenizer:
    config = bpe.Config(byte_handling="fallback", character_coverage=coverage)
    return Tokenizer.of(bpe.train(Words.of(count_words(texts, "qwen2")), config=config, vocab_size=vocab_size))


@pytest.fixture(scope="module")
def tokenizer(prose: list[str]) -> Tokenizer:
    return trained(prose, 900, coverage=0.9)


@pytest.fixture
def library(tokenizer: Tokenizer, tmp_path: Path) -> tokenizers.Tokenizer:
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    loaded.encode_special_tokens = True
    return loaded


def test_the_alphabet_by_hand() -> None:
    # 10 characters, a 5, b 3, é 1, z 1: half of the text is a's, 0.8 of it a's and b's; of é and z, z is first.
    words = Words.of({"aab": 2, "ab": 1, "éz": 1})
    covering = {share: "".join(alphabet.covering(words, share, most=9)) for share in (0.5, 0.51, 0.8, 0.81, 1.0)}
    assert covering == {0.5: "a", 0.51: "ab", 0.8: "ab", 0.81: "abz", 1.0: "abzé"}
    assert alphabet.covering(words, 1.0, most=3) == ["a", "b", "z"]
    assert alphabet.covering(Words.of({}), 1.0, most=3) == []


def test_ids_by_hand() -> None:
    # a b are the alphabet (273, 274), ab the first merge; é, rarer, is its bytes C3 A9, whose ids are 17 + byte.
    tokenizer = trained(["ab ab ab ab é"], FIRST_CHARACTER + 4, coverage=0.9)
    space, a, b = (FIRST_CHARACTER + place for place in range(3))
    assert tokenizer.merge_pairs == [(a, b)]
    assert tokenizer.encode("ab éa") == [b + 1, space, 17 + 0xC3, 17 + 0xA9, a]
    assert tokenizer.encode("a\x00") == [a, 17]
    assert tokenizer.special_id("<|endoftext|>") == 0
    assert tokenizer.token_bytes(16) == b"<unk>"
    assert tokenizer.bytes_per_id.tolist() == [0] * 16 + [5] + [1] * 256 + [1, 1, 1, 2]


@pytest.mark.parametrize("vocab_size", [700, 1000])
def test_it_trains_as_in_the_library(
    vocab_size: int, prose: list[str], soup: list[str], regexes: dict[str, str], tmp_path: Path
) -> None:
    theirs = tokenizers.Tokenizer(models.BPE(unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True))
    theirs.pre_tokenizer = pre_tokenizers.Split(Regex(regexes["qwen2"]), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=0, special_tokens=[*SPECIALS, UNKNOWN, *BYTE_NAMES], show_progress=False
    )
    theirs.train_from_iterator([*prose, *soup], trainer)
    ours = trained([*prose, *soup], vocab_size)
    ours.save(tmp_path / "tokenizer.json")
    assert json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))["model"] == json.loads(theirs.to_str())["model"]


@pytest.mark.sampled(1)
def test_ids_are_the_librarys(
    all_hard: list[str],
    every_scalar: list[str],
    soup: list[str],
    tokenizer: Tokenizer,
    library: tokenizers.Tokenizer,
) -> None:
    for text in (*all_hard, *every_scalar, *soup):
        ids = library.encode(text).ids
        assert tokenizer.encode(text) == ids
        assert library.decode(ids, skip_special_tokens=False) == text


def test_the_library_writes_what_it_reads(tokenizer: Tokenizer, library: tokenizers.Tokenizer, tmp_path: Path) -> None:
    assert library.to_str(pretty=True) == (tmp_path / "tokenizer.json").read_text("utf-8")


def test_transformers_loads_it(all_hard: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path / "tokenizer.json")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), clean_up_tokenization_spaces=False
    )
    for text in all_hard:
        if "<|" not in text:
            assert fast.encode(text, add_special_tokens=False) == tokenizer.encode(text)
            assert fast.decode(tokenizer.encode(text)) == text


@pytest.mark.sampled(1)
def test_every_text_comes_back(
    all_hard: list[str], every_scalar: list[str], soup: list[str], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert not loaded.is_byte_level
    for text in (*all_hard, *every_scalar, *soup, "<0x41><unk> <|im_end|>", "a\ud800b"):
        ids = loaded.encode(text)
        assert ids == tokenizer.encode(text)
        assert loaded.decode(ids) == text
        stream = StreamDecoder(loaded)
        assert "".join(map(stream.feed, ids)) + stream.finish() == text


def test_a_vocabulary_too_small_for_the_alphabet_keeps_the_commonest() -> None:
    tokenizer = trained(["aaa bb c"], FIRST_CHARACTER + 2)
    assert [tokenizer.token_bytes(FIRST_CHARACTER + place) for place in range(2)] == [b" ", b"a"]
    assert tokenizer.decode(tokenizer.encode("aaa bb c")) == "aaa bb c"
    with pytest.raises(ConfigError, match="273 to 1,114,112 tokens, not 272"):
        trained(["a"], FIRST_CHARACTER - 1)


REFUSED: dict[str, tuple[Callable[[dict], object], str]] = {  # type: ignore[type-arg]
    "fallback switched off": (lambda m: m.update(byte_fallback=False), "sets `model.byte_fallback` to false"),
    "another unknown token": (
        lambda m: m.update(unk_token="[UNK]"),
        "sets `model.unk_token` to .*, which is not one of",
    ),
    "a byte is missing": (lambda m: m["vocab"].update({"<0x41": m["vocab"].pop("<0x41>")}), "no token for byte 0x41"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_means_something_else_is_refused(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    change, message = REFUSED[name]
    tokenizer.save(tmp_path / "tokenizer.json")
    document = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    change(document["model"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(InputError, match=message):
        Tokenizer.load(tmp_path / "tokenizer.json")
