"""Unigram encoding against spellings by hand, against all spellings, and against the library that loads our file."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from alm import kinds
from alm.config.base import Config, OfKind
from alm.errors import InputError
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.models import unigram
from alm.tokenizers.pretokenize import count_words
from alm.tokenizers.words import PADDING, Words

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>", *(f"<|reserved_{i}|>" for i in range(12))]
UNKNOWN_ID, FIRST_BYTE, FIRST_PIECE = 16, 17, 273
LITERALS = [
    "<0x41>",
    "a<0x41>b <0xFF>",
    "<unk>",
    "<unk><unk> é<unk>",
    "<|im_start|>user",
    "中<|im_start|>中<|endoftext|>",
    "<|reserved_11|>",
    "<0x41",
    "<|im_start|",
]
ASCII = {chr(point): -20.0 for point in range(32, 127)}


@pytest.fixture(scope="module")
def words(all_hard: list[str], prose: list[str]) -> Words:
    common = [text for name, text in zip(range(99), all_hard, strict=False) if name % 2]
    return Words.of(count_words([*prose, *common * 3], "qwen2"))


@pytest.fixture(scope="module")
def model(words: Words) -> unigram.Model:
    """Of hard text. Half the characters of that text are pieces, the others bytes."""
    return unigram.train(words, config=unigram.Config(character_coverage=0.95), vocab_size=800)


@pytest.fixture(scope="module")
def saved(model: unigram.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unigram") / "tokenizer.json"
    Tokenizer.of(model).save(path)
    return path


@pytest.fixture(scope="module")
def library(saved: Path) -> tokenizers.Tokenizer:
    return library_of(saved)


def library_of(path: Path) -> tokenizers.Tokenizer:
    loaded = tokenizers.Tokenizer.from_file(str(path))
    loaded.encode_special_tokens = True
    return loaded


def by_library(loaded: tokenizers.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in loaded.encode_batch_fast(list(texts), add_special_tokens=False)]


def lists(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    encoded = tokenizer.encode_batch(texts)
    return [encoded.ids[start:stop].tolist() for start, stop in itertools.pairwise(encoded.offsets.tolist())]


def made_of(pieces: dict[str, float]) -> unigram.Model:
    """A model of these scores and of unlikely ASCII characters."""
    everything = {**ASCII, **pieces}
    return unigram.Model.of(list(everything), list(everything.values()))


def spelled(way: str, model: unigram.Model, word: str) -> list[str]:
    """The names of the ids of a word that the split leaves whole."""
    encoded = word.encode("utf-8", "surrogatepass")
    if way == "plain":
        ids = model.word_encoder()(encoded)
    else:
        data = np.frombuffer(encoded + bytes(PADDING), dtype=np.uint8)
        ids = model.native_encoder("qwen2").encode(data, np.array([0, len(encoded)]))[0].tolist()
    return [model.names[id_] for id_ in ids]


def test_the_best_of_all_spellings_by_hand(way: str) -> None:
    pieces = {"a": -2.0, "b": -3.0, "c": -1.5, "ab": -4.0, "bc": -3.5, "abc": -7.0}
    # a b c: -6.5; ab c: -5.5; a bc: -5.5; abc: -7.
    assert spelled(way, made_of({**pieces, "ab": -3.9}), "abc") == ["ab", "c"]
    assert spelled(way, made_of({**pieces, "bc": -3.4}), "abc") == ["a", "bc"]
    assert spelled(way, made_of({**pieces, "abc": -5.4}), "abc") == ["abc"]
    assert spelled(way, made_of({"a": -2.0, "b": -1.0, "c": -1.5, "ab": -4.0, "bc": -3.5}), "abc") == ["a", "b", "c"]
    # Of equal ones the first to be found stays, reading from the left.
    assert spelled(way, made_of(pieces), "abc") == ["a", "bc"]


@pytest.mark.parametrize("seed", range(8))
def test_the_best_of_all_spellings_by_trying_them(way: str, seed: int) -> None:
    draw = random.Random(seed)
    letters = "aé中𝕳"  # letters only: the split leaves them together
    pieces = {"".join(draw.choices(letters, k=draw.randrange(2, 5))): draw.uniform(-9, -1) for _ in range(30)}
    pieces |= {letter: draw.uniform(-9, -1) for letter in letters}
    model = made_of(pieces)
    scores = dict(zip(model.names, model.scores, strict=True))
    for _ in range(20):
        word = "".join(draw.choices(letters, k=9))
        cuts = itertools.product([False, True], repeat=len(word) - 1)
        totals = []
        for cut in cuts:
            bounds = [0, *(place + 1 for place, is_cut in enumerate(cut) if is_cut), len(word)]
            parts = [word[start:end] for start, end in itertools.pairwise(bounds)]
            if all(part in pieces for part in parts):
                totals.append(sum(scores[part] for part in parts))
        found = spelled(way, model, word)
        assert "".join(found) == word
        assert sum(scores[part] for part in found) == pytest.approx(max(totals))


def test_a_character_without_a_piece_is_its_bytes(way: str) -> None:
    model = made_of({"a": -1.0, "aa": -1.5})
    assert spelled(way, model, "aéaa") == ["a", "<0xC3>", "<0xA9>", "aa"]
    assert spelled(way, model, "\u4e2d\u4e2da") == ["<0xE4>", "<0xB8>", "<0xAD>"] * 2 + ["a"]
    assert spelled(way, model, "👍") == ["<0xF0>", "<0x9F>", "<0x91>", "<0x8D>"]
    assert spelled(way, model, "\ud83d") == ["<0xED>", "<0xA0>", "<0xBD>"]


def test_ids_are_those_of_the_library(
    way: str, saved: Path, library: tokenizers.Tokenizer, all_hard: list[str], soup: list[str]
) -> None:
    texts = [*all_hard, *soup, *LITERALS]
    assert lists(Tokenizer.load(saved), texts) == by_library(library, texts)


def test_sums_that_differ_by_rounding_alone_are_settled_as_in_the_library(way: str, tmp_path: Path) -> None:
    draw = random.Random(8)
    letters = {letter: round(-5 - draw.random(), 8) for letter in "abcd"}
    # A piece has the score of its letters, so that all spellings of a word are equal but for rounding.
    pieces = {
        "".join(parts): sum(letters[part] for part in parts)
        for size in (1, 2, 3)
        for parts in itertools.product("abcd", repeat=size)
    }
    Tokenizer.of(made_of(pieces)).save(tmp_path / "tokenizer.json")
    # Characters without pieces go before: what they cost decides which digits are rounded away.
    words = ["é" * draw.randrange(4) + "".join(draw.choices("abcd", k=draw.randrange(3, 20))) for _ in range(3000)]
    expected = by_library(library_of(tmp_path / "tokenizer.json"), words)
    assert lists(Tokenizer.load(tmp_path / "tokenizer.json"), words) == expected


@pytest.mark.parametrize("pattern", ["cl100k", "gpt2"])
def test_with_another_split_too(
    way: str, model: unigram.Model, pattern: Any, tmp_path: Path, all_hard: list[str], soup: list[str]
) -> None:
    Tokenizer.of(model, pattern=pattern).save(tmp_path / "tokenizer.json")
    texts = [*all_hard, *soup[:1000], *LITERALS]
    expected = by_library(library_of(tmp_path / "tokenizer.json"), texts)
    assert lists(Tokenizer.load(tmp_path / "tokenizer.json"), texts) == expected


@pytest.mark.slow
def test_of_every_scalar_value_too(saved: Path, library: tokenizers.Tokenizer, every_scalar: list[str]) -> None:
    tokenizer = Tokenizer.load(saved)
    # Every scalar in order, and some of the mixtures: the library takes its time.
    texts = [*every_scalar[:-5], *every_scalar[-5::4]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALM_KERNELS", "always")
        compiled = lists(tokenizer, texts)
        patch.setenv("ALM_KERNELS", "never")
        plain = lists(tokenizer, texts[::7])
    assert compiled == by_library(library, texts)
    assert compiled[::7] == plain
    assert all(tokenizer.decode(ids) == text for ids, text in zip(compiled, texts, strict=True))


def test_the_library_saves_what_it_loaded(
    saved: Path, library: tokenizers.Tokenizer, tmp_path: Path, soup: list[str]
) -> None:
    library.save(str(tmp_path / "again.json"))
    assert json.loads((tmp_path / "again.json").read_text("utf-8")) == json.loads(saved.read_text("utf-8"))
    assert by_library(library_of(tmp_path / "again.json"), soup) == by_library(library, soup)
    assert lists(Tokenizer.load(tmp_path / "again.json"), soup) == lists(Tokenizer.load(saved), soup)


def test_no_text_is_ever_read_for_names(way: str, saved: Path) -> None:
    tokenizer = Tokenizer.load(saved)
    for text in [*LITERALS, *SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256))]:
        ids = tokenizer.encode(text)
        assert min(id_ for id_ in ids if not FIRST_BYTE <= id_ < FIRST_PIECE) >= FIRST_PIECE
        assert all(id_ >= FIRST_PIECE for id_ in ids) or not text.isascii()
        assert tokenizer.decode(ids) == text


def test_every_string_comes_back(way: str, saved: Path, soup: list[str]) -> None:
    tokenizer = Tokenizer.load(saved)
    draw = random.Random(5)
    anything = ["".join(chr(draw.randrange(0x110000)) for _ in range(draw.randrange(30))) for _ in range(300)]
    for text in [*soup[:500], *anything, "\ud800", "a\udfff\ud800b", "\ud83d\ude00", "", "\x00", "é" * 1000]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.slow
def test_many_and_long_words(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(6)
    texts = ["".join(draw.choices("abcdeéx中", k=draw.choice([3, 9, 40, 70]))) for _ in range(6000)]
    texts += ["".join(draw.choices("the catsonmé中", k=30_000)), "a" * 100_000, " " * 50_000, "中" * 9_000]
    tokenizer = Tokenizer.load(saved)
    monkeypatch.setenv("ALM_KERNELS", "always")
    compiled = [lists(tokenizer, texts) for _ in range(2)]  # the second time from memory
    monkeypatch.setenv("ALM_KERNELS", "never")
    assert compiled == [lists(tokenizer, texts)] * 2


def test_a_megabyte_of_one_letter_is_the_librarys(saved: Path, library: tokenizers.Tokenizer) -> None:
    text = "a" * 1_000_000
    assert lists(Tokenizer.load(saved), [text]) == by_library(library, [text])


@pytest.fixture(scope="module")
def document(saved: Path) -> dict[str, Any]:
    return dict(json.loads(saved.read_text("utf-8")))


Break = Callable[[dict[str, Any], list[list[Any]]], object]

BROKEN: dict[str, Break] = {
    "does not set `model.byte_fallback`": lambda model, vocab: model.update(byte_fallback=False),
    "has no `model.vocab`": lambda model, vocab: model.update(vocab={}),
    "has no `model.unk_id` that is one of its pieces": lambda model, vocab: model.update(unk_id=None),
    "has no `model.unk_id` that is one": lambda model, vocab: model.update(unk_id=len(vocab)),
    'has no piece "<0x41>"': lambda model, vocab: vocab[FIRST_BYTE + 0x41].__setitem__(0, "<0x"),
    'has no piece "<|pad|>"': lambda model, vocab: vocab[3].__setitem__(0, "<|pod|>"),
    "gives `<|im_start|>` the ids 2 and 1": lambda model, vocab: vocab.insert(1, vocab.pop(2)),
    "has the piece": lambda model, vocab: vocab.append(vocab[-1]),
    "NaN is not a JSON value": lambda model, vocab: vocab[300].__setitem__(1, float("nan")),
    "-Infinity is not a JSON value": lambda model, vocab: vocab[0].__setitem__(1, float("-inf")),
    "score that is not a number below 1e100: -1e+308": lambda model, vocab: vocab[300].__setitem__(1, -1e308),
    "score that is not a number below 1e100: true": lambda model, vocab: vocab[300].__setitem__(1, True),
    "would find `<unk>` in text": lambda model, vocab: vocab[UNKNOWN_ID].__setitem__(1, 0.0),
    "would find `<|im_end|>` in text": lambda model, vocab: vocab[2].__setitem__(1, -30.0),
    "would find `<0xFF>` in text": lambda model, vocab: vocab[FIRST_BYTE + 255].__setitem__(1, -20.0),
    "not text with a score: number 299": lambda model, vocab: vocab.__setitem__(299, ["", -1.0]),
    "not text with a score: number 298": lambda model, vocab: vocab.__setitem__(298, ["a"]),
    "half a surrogate pair": lambda model, vocab: vocab.append(["\ud800", -9.0]),
    'has the piece "ab☃☃", and none for its character "☃"': lambda model, vocab: vocab.append(["ab☃☃", -9.0]),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_file_that_the_library_would_follow_otherwise_is_refused(
    message: str, document: dict[str, Any], tmp_path: Path
) -> None:
    broken = json.loads(json.dumps(document))
    BROKEN[message](broken["model"], broken["model"]["vocab"])
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(broken), "utf-8")
    with pytest.raises(InputError) as caught:
        Tokenizer.load(path)
    assert message in caught.value.message
    assert caught.value.hint


def test_a_byte_level_file_is_refused() -> None:
    with pytest.raises(InputError, match="writes bytes as characters before a Unigram model"):
        unigram.read({}, specials={}, added={}, byte_level=True, blank_sign="", fault=InputError)


def test_a_file_with_the_names_elsewhere_is_followed(document: dict[str, Any], tmp_path: Path, soup: list[str]) -> None:
    moved = json.loads(json.dumps(document))
    vocab = moved["model"]["vocab"]
    moved["model"]["vocab"] = [*vocab[:16], *vocab[FIRST_PIECE:], *vocab[17:FIRST_PIECE], vocab[16]]
    moved["model"]["unk_id"] = len(vocab) - 1
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(moved), "utf-8")
    texts = [*soup[:500], *LITERALS]
    assert lists(Tokenizer.load(path), texts) == by_library(library_of(path), texts)


def test_it_is_a_kind() -> None:
    assert "unigram" in kinds.names("alm.tokenizers.models")
    chosen: Config = OfKind("alm.tokenizers.models").validate({"kind": "unigram", "max_piece_length": 8})
    assert chosen == unigram.Config(max_piece_length=8)
    assert kinds.module_of(chosen) is unigram
