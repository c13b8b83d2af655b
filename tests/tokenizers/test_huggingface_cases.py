"""Cases of the tests of huggingface/tokenizers (commit 3ba8ad00, Apache 2.0), tried on our files.

Inputs, tokens and merges are theirs; each test names the file that they come from. Where `alm` differs from the library
on purpose, the test says so: it has all 256 bytes instead of an unknown token, and no text encodes to a special token.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors

from alm.errors import InputError
from alm.tokenizers.file import StreamDecoder, Tokenizer
from alm.tokenizers.models import _plain_bpe, _unigram_fit, _unigram_seeds, bpe, unigram
from alm.tokenizers.pretokenize import split
from alm.tokenizers.special import BYTE_NAMES, SPECIALS, UNKNOWN
from alm.tokenizers.words import Words

Json = dict[str, Any]
Merges = Sequence[Sequence[str]]

FIRST_PIECE = 273
HELLO = ["h e", "he l", "hel l", "hell o"]
UNRELATED = ["r e", "a t", "e d", "u n", "at ed", "re l", "rel ated", "un related"]
BELIRTILEN = [". :", "b e", "be l", "i r", "t i", "ir ti", "e n", "irti l"]
UNMADE = [".:.:", "Ġbelirtilen", "belirtilen", ".:."]

both_ways = pytest.mark.usefixtures("way")


def byte_level(merges: Sequence[str] = (), unmade: Sequence[str] = ()) -> Json:
    """The file of a byte-level BPE with these merges, and with tokens that no merge makes."""
    document: Json = json.loads(Tokenizer.from_merges([])._data)
    vocab = document["model"]["vocab"]
    for token in (*unmade, *(merge.replace(" ", "") for merge in merges)):
        vocab.setdefault(token, len(vocab))
    document["model"]["merges"] = [merge.split(" ") for merge in merges]
    return document


def fallback(characters: str, merges: Merges = ()) -> Json:
    """The file of a BPE over these characters, with bytes for all others."""
    tokens = [*bpe.fallback_tokens(), *(character.encode() for character in characters)]
    names = [*SPECIALS, UNKNOWN, *BYTE_NAMES, *characters]
    pairs = []
    for left, right in merges:
        names.append(left + right)
        pairs.append((names.index(left), names.index(right)))
    document: Json = json.loads(Tokenizer.of(bpe.Model.of(pairs, tokens, byte_level=False))._data)
    return document


def unigram_of(scores: Mapping[str, float]) -> unigram.Model:
    """A model of these pieces and of unlikely ASCII characters."""
    everything = {**{chr(point): -20.0 for point in range(32, 127)}, **scores}
    return unigram.Model.of([*everything], [*everything.values()])


def load(document: Json, folder: Path) -> Tokenizer:
    (folder / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    return Tokenizer.load(folder / "tokenizer.json")


def library(folder: Path) -> tokenizers.Tokenizer:
    loaded = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    loaded.encode_special_tokens = True
    return loaded


def tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.token_bytes(id_).decode("utf-8", "backslashreplace") for id_ in tokenizer.encode(text)]


# models/bpe/model.rs


@both_ways
@pytest.mark.parametrize(
    ("document", "text", "expected"),
    [
        (byte_level(HELLO), "hello", ["hello"]),
        (byte_level(), "hello", [*"hello"]),
        (byte_level(UNRELATED), "unrelated", ["unrelated"]),
        (byte_level(BELIRTILEN, UNMADE), ".:.:", [".:", ".:"]),
        (byte_level(BELIRTILEN, UNMADE), " belirtilen", [" ", "bel", "irtil", "en"]),
        # Of a pair that is given twice, the library takes the last place.
        (byte_level(["a b", "b c", "a b"]), "abc", ["a", "bc"]),
        (byte_level(["a b", "a b", "b c"]), "abc", ["ab", "c"]),
        # Characters outside the alphabet are bytes, where theirs are an unknown token for each or for all.
        (fallback("ab"), "c", ["c"]),
        (fallback("ab"), "cc", ["c", "c"]),
        (fallback("ab"), "accb", ["a", "c", "c", "b"]),
        (fallback("ab"), "\n", ["\n"]),
        (fallback("ab"), "é", ["\\xc3", "\\xa9"]),
    ],
)
def test_words_have_the_tokens_of_their_tests(document: Json, text: str, expected: list[str], tmp_path: Path) -> None:
    tokenizer = load(document, tmp_path)
    for _ in range(2):  # the second time from memory
        assert tokens(tokenizer, text) == expected
    assert tokenizer.encode(text) == library(tmp_path).encode(text).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text


@both_ways
def test_two_tokenizers_share_no_memory_of_words(tmp_path: Path) -> None:
    merged, plain = load(byte_level(HELLO), tmp_path), load(byte_level(), tmp_path)
    for _ in range(2):
        assert tokens(merged, "hello") == ["hello"]
        assert tokens(plain, "hello") == [*"hello"]


@both_ways
@pytest.mark.parametrize(
    "settings", [{"fuse_unk": True}, {"fuse_unk": False}, {"fuse_unk": None}, {"dropout": 0.0}, {"ignore_merges": None}]
)
def test_settings_without_effect_are_read(settings: Json, tmp_path: Path) -> None:
    document = fallback("ab", [("a", "b")])
    ids = load(document, tmp_path).encode("abccba 中中")
    document["model"].update(settings)
    assert load(document, tmp_path).encode("abccba 中中") == library(tmp_path).encode("abccba 中中").ids == ids
    for key in settings:  # absent, as in older files
        del document["model"][key]
    assert load(document, tmp_path).encode("abccba 中中") == ids


def test_a_vocabulary_without_all_bytes_is_refused(tmp_path: Path) -> None:
    # Theirs reads "c" as the unknown token, which decodes to other text.
    document = fallback("ab")
    document["model"]["vocab"] = {name: id_ for id_, name in enumerate([*SPECIALS, UNKNOWN, "<0x61>"])}
    with pytest.raises(InputError, match="has no token for byte 0x00"):
        load(document, tmp_path)
    document["model"] = {
        "type": "Unigram",
        "unk_id": 16,
        "vocab": [[name, -99.0] for name in (*SPECIALS, UNKNOWN, "<0xC3>", "<0xA9>")],
        "byte_fallback": True,
    }
    with pytest.raises(InputError, match='has no piece "<0x00>"'):
        load(document, tmp_path)


# models/bpe/serialization.rs, tests/serialization.rs, bindings/python/tests/test_serialization.py


@both_ways
def test_merges_of_files_before_2024_are_read(tmp_path: Path) -> None:
    document = byte_level(UNRELATED)
    document["model"]["merges"] = ["#version: 0.2", *UNRELATED]
    tokenizer = load(document, tmp_path)
    assert tokenizer.merge_pairs == load(byte_level(UNRELATED), tmp_path).merge_pairs
    assert tokens(tokenizer, "unrelated related") == ["unrelated", " ", "related"]


def test_tokens_may_contain_spaces(tmp_path: Path) -> None:
    merges = [("b", " "), ("b ", "c"), ("b c", " "), ("b c ", "d"), ("a", "b c d")]
    tokenizer = load(fallback(" abcd", merges), tmp_path)
    assert [*map(tokenizer.token_bytes, tokenizer.merge_pairs[-1])] == [b"a", b"b c d"]
    (tmp_path / "ours.json").write_text(json.dumps(fallback(" abcd", merges), indent=2), "utf-8")
    assert library(tmp_path).to_str(pretty=True) == (tmp_path / "ours.json").read_text("utf-8")


@pytest.mark.parametrize("document", [byte_level(UNRELATED), fallback("ab", [("a", "b")])])
def test_a_vocabulary_is_written_by_id(document: Json) -> None:
    ids = [*document["model"]["vocab"].values()]
    assert ids == [*range(len(ids))]


def test_a_long_file_is_read(tmp_path: Path) -> None:
    # Theirs once failed on files longer than a buffer: the Unigram of ALBERT.
    model = unigram_of({f"w{number}": -10 - number / 10_000 for number in range(10_000)})
    Tokenizer.of(model).save(tmp_path / "tokenizer.json")
    assert (tmp_path / "tokenizer.json").stat().st_size > 300_000
    assert Tokenizer.load(tmp_path / "tokenizer.json").vocab_size == len(model.tokens) == 10_000 + FIRST_PIECE + 95


def state(part: Any) -> object:
    """The JSON of a part of the library's pipeline."""
    return json.loads(part.__getstate__())


CLS, SEP = ("[CLS]", 1), ("[SEP]", 0)
SPLIT_STRING = pre_tokenizers.Split("[SEP]", "isolated")
SPLIT_REGEX = pre_tokenizers.Split(Regex("[SEP]"), "isolated")
TEMPLATE = processors.TemplateProcessing(single="[CLS] $0 [SEP]", special_tokens=[CLS, SEP])

UNREAD: list[tuple[str, object]] = [
    ("model.type", "WordPiece"),
    ("model.type", "WordLevel"),
    ("model.dropout", 0.1),
    ("model.dropout", 1.0),
    ("model.unk_token", "[UNK]"),
    ("model.continuing_subword_prefix", "##"),
    ("model.end_of_word_suffix", "</w>"),
    ("model.byte_fallback", True),
    ("model.alpha", 0.5),
    ("model.nbest_size", 64),
    ("model.max_input_chars_per_word", 100),
    ("truncation", {"direction": "Left", "max_length": 2, "strategy": "LongestFirst", "stride": 0}),
    ("padding", {"strategy": {"Fixed": 4}, "pad_id": 0, "pad_token": "[PAD]"}),
    *(("normalizer", state(part)) for part in (normalizers.NFD(), normalizers.NFKC(), normalizers.BertNormalizer())),
    ("normalizer", state(normalizers.ByteLevel())),
    *(("pre_tokenizer", state(part)) for part in (pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Whitespace())),
    *(("pre_tokenizer", state(part)) for part in (pre_tokenizers.CharDelimiterSplit(" "), SPLIT_STRING, SPLIT_REGEX)),
    ("pre_tokenizer", state(pre_tokenizers.ByteLevel(add_prefix_space=True))),
    *(("post_processor", state(part)) for part in (processors.BertProcessing(SEP, CLS), TEMPLATE)),
    ("post_processor", state(processors.RobertaProcessing(SEP, CLS))),
    # What the library cannot read itself: a copy of such a file would be useless there.
    ("model.fuse_unk", 1),
    ("model.byte_fallback", 0),
    ("model.dropout", False),
    ("decoder", {"type": "ByteLevel"}),
    ("decoder", {"type": "ByteLevel", "add_prefix_space": 0, "trim_offsets": True}),
    ("post_processor", {"type": "ByteLevel"}),
    ("pre_tokenizer", json.loads(json.dumps(byte_level()["pre_tokenizer"]).replace('"invert": false', '"invert": 0'))),
    *(("decoder", state(part)) for part in (decoders.WordPiece(), decoders.Metaspace(), decoders.BPEDecoder())),
]


@pytest.mark.parametrize(("field", "value"), UNREAD)
def test_a_part_that_is_not_read_is_refused_by_name(field: str, value: object, tmp_path: Path) -> None:
    document = byte_level(UNRELATED)
    *parents, key = field.split(".")
    (document[parents[0]] if parents else document)[key] = value
    with pytest.raises(InputError, match=rf"it (sets|has) `{field}") as caught:
        load(document, tmp_path)
    assert "alm tokenizer train" in str(caught.value.hint)


def test_a_setting_of_a_unigram_that_is_not_known_is_refused(tmp_path: Path) -> None:
    document = json.loads(Tokenizer.of(unigram_of({}))._data)
    document["model"]["alpha"] = 0.5
    with pytest.raises(InputError, match="has `model.alpha`, which `alm` does not know"):
        load(document, tmp_path)


@pytest.mark.parametrize(
    ("merge", "fault"),
    [
        (["a", "d"], r'has a `model.merges\[1\]` of an unknown token: "ad"'),
        (["c"], r"has a `model.merges\[1\]` that is not a pair of tokens: \[\"c\"\]"),
        ("c", r'has a `model.merges\[1\]` that is not a pair of tokens: "c"'),
        ("a b c d", r'has a `model.merges\[1\]` that is not a pair of tokens: "a b c d"'),
    ],
)
def test_a_bad_merge_is_named_by_its_place(merge: object, fault: str, tmp_path: Path) -> None:
    document = byte_level(["a b"])
    document["model"]["merges"].append(merge)
    with pytest.raises(InputError, match=fault):
        load(document, tmp_path)


# models/bpe/trainer.rs, models/bpe/word.rs

ROSES = {
    "roses": 1, "are": 2, "red": 1, "voilets": 1, "blue": 1, "BERT": 1, "is": 2, "big": 1, "and": 1, "so": 1, "GPT-2": 1
}  # fmt: skip


@both_ways
@pytest.mark.parametrize("byte_handling", ["bytes", "fallback"])
def test_merges_of_roses(byte_handling: str) -> None:
    config = bpe.Config.model_validate({"byte_handling": byte_handling, "character_coverage": 1.0})
    base = len(bpe.base_tokens()) if byte_handling == "bytes" else FIRST_PIECE + len("-2BEGPRTabdegilnorstuv")
    model = bpe.train(Words.of(ROSES), config=config, vocab_size=base + 3)
    if byte_handling == "fallback":
        assert b"".join(model.tokens[FIRST_PIECE:base]) == b"-2BEGPRTabdegilnorstuv"
    assert [(model.tokens[left], model.tokens[right]) for left, right, _ in model.merges] == [
        (b"r", b"e"),
        (b"a", b"re"),
        (b"i", b"s"),
    ]


def test_counts_after_a_merge() -> None:
    # h 0, e 1, l 2, o 3: l+l becomes 4.
    pairs = _plain_bpe._Pairs([("\0\1\2\2\3", 1)])
    pairs.join("\2\2", "\4")
    assert pairs.words == ["\0\1\4\3"]
    assert {pair: count for pair, count in pairs.counts.items() if count} == {"\0\1": 1, "\1\4": 1, "\4\3": 1}


LONG_WORDS = [
    "singlelongtokenwithoutcasechange",
    "singleLongTokenWithCamelCaseChange",
    "Longsingletokenwithpunctu@t!onwithin",
    "Anotherlongsingletokenwithnumberw1th1n",
    "짧은한글문자열짧은한",
    "긴한글문자열긴한글문자열긴한글문",
    "短字符串短字符串短字",
    "长字符串长字符串长字符串长字符串",
    "短い文字列短い文字列",
    "長い文字列長い文字列長い文字列長",
    "so",
    "GPT-2",
]


@pytest.mark.parametrize("longest", [16, 2])
def test_characters_of_the_longest_piece(longest: int) -> None:
    # Their `max_token_length` of BPE; ours is of Unigram. Both count characters, not bytes.
    words = Words.of(dict.fromkeys(LONG_WORDS, 2))
    config = unigram.Config(max_piece_length=longest, character_coverage=1.0)
    model = unigram.train(words, config=config, vocab_size=1000)
    assert max(map(len, model.names[FIRST_PIECE:])) == longest


# models/unigram/{model,trainer,lattice}.rs

DOUBLED = {
    "ab": 0.0, "cd": -0.1, "abc": -0.2, "a": -0.3, "b": -0.4, "c": -0.5, "ABC": -0.5, "abcdabcd": 20.0, "q": 20.5,
    "r": 20.5, "qr": -0.5,
}  # fmt: skip
NESTED = {"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.0, "cd": 1.0, "ab": 2.0, "abc": 5.0, "abcd": 10.0}
SENTENCE = {"A": -0.03, "te": -0.02, "n": -0.04, "ce": -0.05, " sen": -0.02}  # a space begins a word here
LETTERS = {"A": 0.0, "B": 0.0, "C": 0.0}


@both_ways
@pytest.mark.parametrize(
    ("scores", "text", "expected"),
    [
        (NESTED, "abcd", ["abcd"]),
        (NESTED, "abcdacdxx", ["abcd", "a", "cd", "x", "x"]),  # theirs: one unknown token "xx"
        (DOUBLED, "abc", ["abc"]),
        (DOUBLED, "AB", ["A", "B"]),
        (DOUBLED, "abcd", ["ab", "cd"]),
        (DOUBLED, "abcc", ["abc", "c"]),
        (DOUBLED, "xabcabaabcdd", ["x", "abc", "ab", "a", "ab", "cd", "d"]),
        (DOUBLED, "東京", ["\\xe6", "\\x9d", "\\xb1", "\\xe4", "\\xba", "\\xac"]),
        (DOUBLED, "ABC", ["ABC"]),
        (DOUBLED, "abABCcd", ["ab", "ABC", "cd"]),
        (DOUBLED, "ababcdabcdcd", ["ab", "abcdabcd", "cd"]),
        (DOUBLED, "abqrcd", ["ab", "q", "r", "cd"]),
        (DOUBLED, "é", ["\\xc3", "\\xa9"]),
        (SENTENCE, "A sentence 🤗", ["A", " sen", "te", "n", "ce", " ", "\\xf0", "\\x9f", "\\xa4", "\\x97"]),
        (LETTERS, "ABC", ["A", "B", "C"]),
        (LETTERS | {"AB": 2.0}, "ABC", ["AB", "C"]),
        (LETTERS | {"AB": 2.0, "BC": 5.0}, "ABC", ["A", "BC"]),
        (LETTERS | {"AB": 2.0, "BC": 5.0, "ABC": 10.0}, "ABC", ["ABC"]),
    ],
)
def test_the_best_spelling(scores: dict[str, float], text: str, expected: list[str], tmp_path: Path) -> None:
    tokenizer = Tokenizer.of(unigram_of(scores))
    tokenizer.save(tmp_path / "tokenizer.json")
    assert tokens(tokenizer, text) == expected
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode(text) == library(tmp_path).encode(text).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_expected_counts_of_the_pieces_of_a_lattice() -> None:
    # AB and BC are words of their own here, because seeds must repeat.
    words = {"ABC": 2, "AB": 1, "BC": 1}
    pieces = _unigram_seeds.seed(_unigram_seeds.Text.of(Words.of(words), "ABC", most=99), most=9, longest=3)
    fitting = _unigram_fit.Fitting(pieces, 3)
    scores = {"A": 1.0, "B": 1.2, "C": 2.5, "AB": 3.0, "BC": 4.0, "ABC": 2.0}
    assert {*pieces.spelled()} == {*scores}
    fitting.scores = np.array([scores[piece] for piece in pieces.spelled()])
    apart, left, right, whole = math.exp(4.7), math.exp(5.5), math.exp(5.0), math.exp(2.0)
    total = apart + left + right + whole
    of_ab, of_bc = math.exp(2.2) + math.exp(3.0), math.exp(3.7) + math.exp(4.0)
    assert fitting.expect() == pytest.approx(2 * math.log(total) + math.log(of_ab) + math.log(of_bc))
    found = dict(zip(pieces.spelled(), fitting.frequencies.tolist(), strict=True))
    assert found == pytest.approx(
        {
            "A": 2 * (apart + right) / total + math.exp(2.2) / of_ab,
            "B": 2 * apart / total + math.exp(2.2) / of_ab + math.exp(3.7) / of_bc,
            "C": 2 * (apart + left) / total + math.exp(3.7) / of_bc,
            "AB": 2 * left / total + math.exp(3.0) / of_ab,
            "BC": 2 * right / total + math.exp(4.0) / of_bc,
            "ABC": 2 * whole / total,
        }
    )


def test_the_characters_and_seeds_of_two_sentences() -> None:
    words = Words.of({"This is a": 1, "こんにちは友達": 1})
    model = unigram.train(words, config=unigram.Config(character_coverage=1.0), vocab_size=500)
    assert {name for name in model.names[FIRST_PIECE:] if len(name) == 1} == {*unigram.ALWAYS, *"こんにちは友達"}
    assert model.names[:FIRST_PIECE] == [*SPECIALS, UNKNOWN, *BYTE_NAMES]
    alphabet = "".join(sorted({*"This is aこんにちは友達"}))
    assert len(alphabet) == 13
    seeds = _unigram_seeds.seed(_unigram_seeds.Text.of(words, alphabet, most=99), most=99, longest=16)
    # Theirs has "s " too, which occurs in "is " alone.
    found = {piece: int(count) for piece, count in zip(seeds.spelled(), seeds.frequencies, strict=True)}
    assert {piece: count for piece, count in found.items() if count > 1} == {"s": 2, "i": 2, " ": 2, "is ": 2}


# tests/added_tokens.rs, tests/offsets.rs


def added(document: Json, name: str, **flags: bool) -> Json:
    """The document with one more special token."""
    vocab = document["model"]["vocab"]
    id_ = vocab.setdefault(name, len(vocab))
    token = {**document["added_tokens"][0], "id": id_, "content": name, **flags}
    return {**document, "added_tokens": [*document["added_tokens"], token]}


@both_ways
@pytest.mark.parametrize("name", ["<mask>", "[MASK]", "ing", "<end_of_text>", "of_text>"])
def test_an_added_token_is_not_found_in_text(name: str, tmp_path: Path) -> None:
    tokenizer = load(added(byte_level(HELLO), name), tmp_path)
    texts = ["I saw a <mask> 😺", "Yesterday I saw a [MASK] far away", "I like dancing"]
    for text in (*texts, "Hey there<end_of_text> dear<eot>friend!", name):
        ids = tokenizer.encode(text)
        assert tokenizer.special_id(name) not in ids
        assert tokenizer.decode(ids) == text
        assert ids == library(tmp_path).encode(text).ids
    assert tokenizer.decode([tokenizer.special_id(name)]) == name


@both_ways
@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("flags", [{}, {"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}])
@pytest.mark.parametrize("normalized", [True, False])
def test_an_added_token_that_is_not_special_is_found_in_text(
    special: bool, flags: dict[str, bool], normalized: bool, tmp_path: Path
) -> None:
    document = added(byte_level(HELLO), "<mask>", special=special, normalized=normalized, **flags)
    document = added(document, "<mask> <mask>", special=False)
    document = added(document, "ask>  <m", special=True)
    tokenizer = load(document, tmp_path)
    assert [*tokenizer.found_in_text] == ["<mask>", "<mask> <mask>"][special:]
    texts = [
        "a <mask> b",
        "<mask>",
        "  <mask>\n\u3000\x1c<mask> <mask> <mask>",
        "<mask><mask>",
        "<mask",
        "<mask>  <mask>",
    ]
    expected = [library(tmp_path).encode(text).ids for text in texts]
    assert [tokenizer.encode(text) for text in texts] == expected
    batch = tokenizer.encode_batch(texts)
    assert [batch.ids[start:stop].tolist() for start, stop in pairwise(batch.offsets)] == expected
    sizes = tokenizer.bytes_per_id[tokenizer.encode("<mask> <mask>x")]
    assert sizes.sum() == len("<mask> <mask>x")


def test_words_alone_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it sets `single_word` of `<mask>` to true"):
        load(added(byte_level(), "<mask>", special=False, single_word=True), tmp_path)


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (added(byte_level(HELLO), "hello"), 'has a `model.merges[3]` with "hello", which is a special token or a byte'),
        # These would decode to the text of their names, not to the text that they were made from.
        (added(byte_level(["Ġ a"]), "Ġa"), 'has a `model.merges[0]` with "\\u0120a", which is a special token'),
        (fallback("ab", [("<0xC3>", "<0xA9>")]), 'has a `model.merges[0]` with "<0xC3>", which is a special token'),
        (added(fallback("ab", [("a", "b")]), "ab"), 'has a `model.merges[0]` with "ab", which is a special token'),
        (added(byte_level(), ""), 'has an added token whose `content` is not text: ""'),
        (added(byte_level(), "<mask>", frozen=True), "has `added_tokens[16].frozen`, which `alm` does not know"),
    ],
)
def test_a_special_token_that_text_could_become_is_refused(document: Json, fault: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(document, tmp_path)
    assert f"it {fault}" in caught.value.message


def test_tokens_lie_where_theirs_do(tmp_path: Path) -> None:
    assert split("Hello there, how are you?", "gpt2") == ["Hello", " there", ",", " how", " are", " you", "?"]
    assert split("My name is Anthony", "gpt2") == ["My", " name", " is", " Anthony"]
    tokenizer = load(byte_level(), tmp_path)
    ends = accumulate(tokenizer.bytes_per_id[tokenizer.encode("i⭢j")].tolist(), initial=0)
    assert [*pairwise(ends)] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]


# tests/stream.rs, bindings/python/tests/bindings/{test_decoders,test_tokenizer}.py


@pytest.mark.parametrize("document", [byte_level(), fallback(" ABCDEFGHIJ")])
@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("A B C", ["A", " ", "B", " ", "C"]),
        ("삥뽕빵", ["", "", "삥", "", "", "뽕", "", "", "빵"]),
        ("อั", ["", "", "อ", "", "", "ั"]),
        (" é", [" ", "", "é"]),
        ("嗎д", ["", "", "嗎", "", "д"]),
    ],
)
def test_a_stream_gives_whole_characters(document: Json, text: str, steps: list[str], tmp_path: Path) -> None:
    tokenizer = load(document, tmp_path)
    stream = StreamDecoder(tokenizer)
    assert [stream.feed(id_) for id_ in tokenizer.encode(text)] == steps
    assert stream.finish() == ""


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a", "a"),
        (b"\xe5\x8f\xab", "叫"),
        (b"\xe5\x8f\xaba", "叫a"),
        (b"\xe5", "\ufffd"),
        # Theirs writes U+FFFD for each byte of a run with a bad one, also for whole characters: `��`, `��a`, `���`.
        (b"\xe5\x8f", "\ufffd"),
        (b"\xe5\x8fa", "\ufffda"),
        (b"\xc3\xa9\xe5", "é\ufffd"),
    ],
)
def test_bytes_decode_to_their_characters(data: bytes, expected: str, tmp_path: Path) -> None:
    tokenizer = load(fallback(""), tmp_path)
    assert tokenizer.decode([FIRST_PIECE - 256 + byte for byte in data]) == expected


@pytest.mark.parametrize("batch", [["my name", "pair"], ("my name", "pair"), np.array(["my name", "pair"])])
def test_a_batch_is_any_sequence_of_texts(batch: Sequence[str], tmp_path: Path) -> None:
    tokenizer = load(byte_level(HELLO), tmp_path)
    encoded = tokenizer.encode_batch(batch)
    assert tokenizer.decode(encoded.ids) == "my namepair"
    assert encoded.offsets.tolist() == [0, 7, 11]
