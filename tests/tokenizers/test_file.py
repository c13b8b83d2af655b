"""The tokenizer file: the library's own bytes, its ids, exact round trips, and every refusal."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from cases import for_each

from alm.errors import AlmError, InputError
from alm.tokenizers.file import StreamDecoder, Tokenizer
from alm.tokenizers.models import bpe
from alm.tokenizers.pretokenize import Pattern, count_words
from alm.tokenizers.special import SPECIALS
from alm.tokenizers.words import Words

from .conftest import HARD

Train = Callable[..., tokenizers.Tokenizer]

VOCAB_SIZE = 600

pytestmark = pytest.mark.usefixtures("way")
GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


@pytest.fixture(scope="module")
def tokenizer(prose: list[str]) -> Tokenizer:
    return Tokenizer.from_merges(
        bpe.learn_merges(Words.of(count_words(prose, "qwen2")), bpe.base_tokens(), vocab_size=VOCAB_SIZE)
    )


@pytest.fixture(scope="module")
def bytes_only() -> Tokenizer:
    return Tokenizer.from_merges([])


@pytest.fixture
def path(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    tokenizer.save(tmp_path / "tokenizer.json")
    return tmp_path / "tokenizer.json"


@pytest.fixture
def library(path: Path) -> tokenizers.Tokenizer:
    loaded = tokenizers.Tokenizer.from_file(str(path))
    loaded.encode_special_tokens = True  # text is text: `<|endoftext|>` in it is no special token
    return loaded


# The file


def test_the_file_is_the_one_the_library_saves(prose: list[str], path: Path, library_train: Train) -> None:
    trained = library_train(prose, VOCAB_SIZE)
    trained.save(str(path.with_name("library.json")), pretty=True)
    assert path.read_bytes() == path.with_name("library.json").read_bytes()


def test_saving_twice_and_after_loading_gives_the_same_bytes(tokenizer: Tokenizer, path: Path, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "again.json")
    loaded = Tokenizer.load(path)
    loaded.save(tmp_path / "loaded" / "tokenizer.json")
    written = {file.read_bytes() for file in (path, tmp_path / "again.json", tmp_path / "loaded" / "tokenizer.json")}
    assert len(written) == 1
    digest = hashlib.sha256(written.pop()).hexdigest()
    assert tokenizer.sha256 == loaded.sha256 == digest


def test_a_loaded_tokenizer_is_the_saved_one(tokenizer: Tokenizer, path: Path, soup: list[str]) -> None:
    loaded = Tokenizer.load(str(path))
    assert loaded.vocab_size == tokenizer.vocab_size == VOCAB_SIZE
    assert [loaded.token_bytes(id_) for id_ in range(VOCAB_SIZE)] == [
        tokenizer.token_bytes(id_) for id_ in range(VOCAB_SIZE)
    ]
    assert all(loaded.encode(text) == tokenizer.encode(text) for text in soup)


def test_a_file_that_only_looks_different_is_loaded_as_it_is(path: Path, tokenizer: Tokenizer) -> None:
    compact = json.dumps(json.loads(path.read_text("utf-8"))).encode()
    path.write_bytes(compact)
    loaded = Tokenizer.load(path)
    assert loaded.encode("The cat.") == tokenizer.encode("The cat.")
    assert loaded.sha256 == hashlib.sha256(compact).hexdigest() != tokenizer.sha256


def test_specials_outside_the_vocabulary_are_read_from_the_added_tokens(path: Path, tokenizer: Tokenizer) -> None:
    document = json.loads(path.read_text("utf-8"))
    for name in SPECIALS:
        del document["model"]["vocab"][name]
    path.write_text(json.dumps(document), "utf-8")
    assert Tokenizer.load(path).encode("The cat.") == tokenizer.encode("The cat.")


# Ids


@pytest.mark.sampled(2)
def test_each_pattern_trains_and_encodes_as_in_the_library(
    pattern: Pattern, prose: list[str], soup: list[str], tmp_path: Path, library_train: Train
) -> None:
    words = Words.of(count_words([*prose, *soup[:500]], pattern))
    ours = Tokenizer.from_merges(bpe.learn_merges(words, bpe.base_tokens(), vocab_size=VOCAB_SIZE), pattern=pattern)
    theirs = library_train([*prose, *soup[:500]], VOCAB_SIZE, pattern=pattern)
    ours.save(tmp_path / "tokenizer.json")
    assert (tmp_path / "tokenizer.json").read_text("utf-8") == theirs.to_str(pretty=True)
    assert Tokenizer.load(tmp_path / "tokenizer.json").pattern == pattern
    theirs.encode_special_tokens = True
    assert all(ours.encode(text) == theirs.encode(text).ids for text in (*prose, *soup))


@pytest.mark.parametrize("steps", [[GPT2], [{"type": "Digits", "individual_digits": True}, GPT2]])
@pytest.mark.parametrize("trims", [True, False])
def test_the_split_that_gpt2_and_smollm_write(
    steps: list[dict[str, Any]], trims: bool, path: Path, all_hard: list[str], soup: list[str]
) -> None:
    document = json.loads(path.read_text("utf-8"))
    steps = [*steps[:-1], steps[-1] | {"trim_offsets": trims}]
    document["pre_tokenizer"] = steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}
    path.write_text(json.dumps(document), "utf-8")
    ours, theirs = Tokenizer.load(path), tokenizers.Tokenizer.from_file(str(path))
    theirs.encode_special_tokens = True
    assert ours.pattern == ("gpt2" if len(steps) == 1 else "smollm")
    assert all(ours.encode(text) == theirs.encode(text).ids for text in (*all_hard, *soup))


@for_each("hard", HARD.values())
def test_hard_text_encodes_as_in_the_library(hard: str, tokenizer: Tokenizer, library: tokenizers.Tokenizer) -> None:
    assert tokenizer.encode(hard) == library.encode(hard).ids


@pytest.mark.parametrize("change", ["reversed", "shuffled", "first twice", "last twice", "half"])
def test_merges_in_another_order_encode_as_in_the_library(
    change: str, path: Path, all_hard: list[str], prose: list[str]
) -> None:
    document = json.loads(path.read_text("utf-8"))
    merges = document["model"]["merges"]
    changed = {
        "reversed": merges[::-1],
        "shuffled": random.Random(3).sample(merges, len(merges)),
        "first twice": merges + merges[:20],
        "last twice": merges[-20:] + merges,
        "half": merges[::2],
    }
    document["model"]["merges"] = changed[change]
    path.write_text(json.dumps(document), "utf-8")
    ours, theirs = Tokenizer.load(path), tokenizers.Tokenizer.from_file(str(path))
    theirs.encode_special_tokens = True
    assert all(ours.encode(text) == theirs.encode(text).ids for text in (*all_hard, *prose[:5]))


@pytest.mark.sampled(1)
def test_every_scalar_and_random_text_encode_as_in_the_library(
    every_scalar: list[str], soup: list[str], tokenizer: Tokenizer, library: tokenizers.Tokenizer
) -> None:
    for text in (*every_scalar, *soup):
        assert tokenizer.encode(text) == library.encode(text).ids


def test_transformers_loads_the_file_with_the_same_ids(path: Path, tokenizer: Tokenizer, all_hard: list[str]) -> None:
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path), clean_up_tokenization_spaces=False)
    assert len(fast) == tokenizer.vocab_size
    assert fast.convert_tokens_to_ids(list(SPECIALS)) == list(range(16))
    for text in all_hard:
        if "<|" not in text:  # there it parses special tokens
            assert fast.encode(text, add_special_tokens=False) == tokenizer.encode(text)
            assert fast.decode(tokenizer.encode(text)) == text


def test_no_text_encodes_to_a_special_token(tokenizer: Tokenizer, bytes_only: Tokenizer) -> None:
    for text in (*SPECIALS, "".join(SPECIALS), "<|endoftext|><|endoftext|>\n" * 5):
        for each in (tokenizer, bytes_only):
            assert min(each.encode(text)) >= len(SPECIALS)
            assert each.decode(each.encode(text)) == text


def test_a_batch_is_its_texts_one_by_one(tokenizer: Tokenizer, all_hard: list[str]) -> None:
    encoded = tokenizer.encode_batch(all_hard)
    assert (encoded.ids.dtype, encoded.offsets.dtype) == (np.int32, np.int64)
    assert encoded.ids.flags.writeable
    assert len(encoded.offsets) == len(all_hard) + 1
    assert (encoded.offsets[0], encoded.offsets[-1]) == (0, len(encoded.ids))
    for place, text in enumerate(all_hard):
        start, stop = encoded.offsets[place : place + 2]
        assert encoded.ids[start:stop].tolist() == tokenizer.encode(text)


def test_a_batch_of_nothing(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_batch([]).offsets.tolist() == [0]
    empty = tokenizer.encode_batch(iter(["", ""]))
    assert (empty.ids.size, empty.offsets.tolist()) == (0, [0, 0, 0])


def test_a_full_cache_changes_no_id(
    tokenizer: Tokenizer, path: Path, soup: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alm.tokenizers.file._CACHED_WORDS", 3)
    small = Tokenizer.load(path)
    assert all(small.encode(text) == tokenizer.encode(text) for text in soup)
    assert len(small._words) <= 3


# Round trips


@for_each("hard", HARD.values())
def test_hard_text_comes_back(hard: str, tokenizer: Tokenizer, bytes_only: Tokenizer) -> None:
    for each in (tokenizer, bytes_only):
        assert each.decode(each.encode(hard)) == hard
        assert each.decode_bytes(each.encode(hard)) == hard.encode()


@pytest.mark.sampled(1)
def test_every_code_point_comes_back_surrogates_too(tokenizer: Tokenizer) -> None:
    everything = "".join(map(chr, range(0x110000)))
    for text in (everything, everything[0xD7F0:0xE010][::-1], "\ud83d\ude00 \udfff\ud800a\udc80", "\ud800"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_random_strings_come_back(tokenizer: Tokenizer) -> None:
    draw = random.Random(8)
    tops = [0x80, 0x800, 0xE000, 0x10000, 0x110000]
    for _ in range(3000):
        text = "".join(chr(draw.randrange(draw.choice(tops))) for _ in range(draw.randrange(30)))
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_random_ids_decode_as_in_the_library(tokenizer: Tokenizer, library: tokenizers.Tokenizer) -> None:
    # Without 0xED: half a surrogate is the one thing decoded differently, and there on purpose.
    draw = random.Random(9)
    ids = [id_ for id_ in range(VOCAB_SIZE) if b"\xed" not in tokenizer.token_bytes(id_)]
    for _ in range(2000):
        drawn = draw.choices(ids, k=draw.randrange(12))
        assert tokenizer.decode(drawn) == library.decode(drawn, skip_special_tokens=False)


# Ids, bytes and specials


def test_specials_by_id_decode_to_their_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.end_of_text_id == 0
    assert [tokenizer.special_id(name) for name in SPECIALS] == list(range(16))
    assert tokenizer.decode([1, *tokenizer.encode("hi"), 2, 0]) == "<|im_start|>hi<|im_end|><|endoftext|>"
    assert tokenizer.token_bytes(15) == b"<|reserved_11|>"


@for_each("hard", HARD.values())
def test_bytes_per_id_add_up_to_the_text(tokenizer: Tokenizer, hard: str) -> None:
    assert tokenizer.bytes_per_id.dtype == np.int32
    assert tokenizer.bytes_per_id[tokenizer.encode(hard)].sum() == len(hard.encode())
    assert tokenizer.bytes_per_id[:16].tolist() == [0] * 16
    assert tokenizer.bytes_per_id[16:272].tolist() == [1] * 256
    assert tokenizer.bytes_per_id[272:].min() >= 2


def test_ids_come_as_lists_or_arrays(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("The cat")
    assert all(type(id_) is int for id_ in ids)
    assert tokenizer.decode(np.array(ids, dtype=np.uint16)) == tokenizer.decode(ids) == "The cat"
    assert tokenizer.decode(np.array([], dtype=np.int32)) == tokenizer.decode([]) == ""


@pytest.mark.parametrize("id_", [-1, VOCAB_SIZE, 10**12])
def test_an_id_out_of_range_is_refused(tokenizer: Tokenizer, id_: int) -> None:
    calls: list[Callable[[], object]] = [
        lambda: tokenizer.decode([20, id_, 30]),
        lambda: tokenizer.decode_bytes(np.array([id_])),
        lambda: tokenizer.token_bytes(id_),
        lambda: StreamDecoder(tokenizer).feed(id_),
    ]
    for call in calls:
        with pytest.raises(InputError, match=f"^id {id_} is not in this tokenizer, whose ids are 0 to 599$") as caught:
            call()
        assert "alm info" in str(caught.value.hint)


def test_an_unknown_special_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"no special token `<s>` \(there are: <\|endoftext\|>, ") as caught:
        tokenizer.special_id("<s>")
    assert caught.value.hint


# Streams


@for_each("hard", HARD.values())
def test_a_stream_never_cuts_a_character(hard: str, tokenizer: Tokenizer, bytes_only: Tokenizer) -> None:
    for each in (tokenizer, bytes_only):
        stream, fed, shown = StreamDecoder(each), b"", ""
        for id_ in each.encode(hard):
            fed += each.token_bytes(id_)
            shown += stream.feed(id_)
            # All that is whole so far, and nothing else.
            assert shown == fed.decode("utf-8", "ignore")
        assert shown + stream.finish() == hard


def test_a_stream_of_any_ids_is_their_decoding(tokenizer: Tokenizer) -> None:
    draw = random.Random(10)
    stream = StreamDecoder(tokenizer)  # one for all: `finish` makes it new
    for _ in range(2000):
        drawn = [draw.randrange(VOCAB_SIZE) for _ in range(draw.randrange(12))]
        assert "".join(map(stream.feed, drawn)) + stream.finish() == tokenizer.decode(drawn)


def test_a_stream_holds_back_half_a_character_until_the_end(bytes_only: Tokenizer) -> None:
    stream = StreamDecoder(bytes_only)
    first, second, *_ = bytes_only.encode("é👍")
    thumb = bytes_only.encode("👍")
    assert [stream.feed(first), stream.feed(second)] == ["", "é"]
    assert [stream.feed(id_) for id_ in thumb[:3]] == ["", "", ""]
    assert (stream.finish(), stream.finish()) == ("\ufffd", "")
    assert [stream.feed(thumb[0]), stream.feed(0)] == ["", "\ufffd<|endoftext|>"]


def test_surrogates_stream(bytes_only: Tokenizer) -> None:
    stream = StreamDecoder(bytes_only)
    pieces = [stream.feed(id_) for id_ in bytes_only.encode("\ud800x\udfff")]
    assert pieces == ["", "", "\ud800", "x", "", "", "\udfff"]


# Refusals


def refusal(path: Path) -> AlmError:
    with pytest.raises(InputError) as caught:
        Tokenizer.load(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def test_a_missing_file(tmp_path: Path) -> None:
    error = refusal(tmp_path / "no.json")
    assert error.message == f"no tokenizer found at `{tmp_path / 'no.json'}`"
    assert error.hint == f"run `alm tokenizer train --out {tmp_path / 'no.json'}`"


def test_a_folder(tmp_path: Path, tokenizer: Tokenizer) -> None:
    error = refusal(tmp_path)
    assert error.message == f"`{tmp_path}` is a folder, a tokenizer.json is needed"
    assert error.hint == f"run `ls {tmp_path}` to see what is in it"
    tokenizer.save(tmp_path / "tokenizer.json")
    assert refusal(tmp_path).hint == f"name the file: `{tmp_path / 'tokenizer.json'}`"


@pytest.mark.parametrize("data", [b"once upon a time", b"\x80\x02weights", b"[" * 100_000, b"{]}", b'{"a":1}}'])
def test_not_json(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(data)
    error = refusal(path)
    assert error.message.startswith(f"`{path}` is not JSON: ")
    assert error.hint == f"run `head -c 200 {path}` to see what it is"


def test_a_truncated_file_wherever_it_ends(tmp_path: Path, path: Path) -> None:
    data = path.read_bytes()
    cut = tmp_path / "cut.json"
    for size in [*range(60), *range(60, len(data) - 1, 997), len(data) - 1]:
        cut.write_bytes(data[:size])
        error = refusal(cut)
        assert error.message == f"`{cut}` is cut off after {size:,} bytes"
        assert error.hint == f"run `alm tokenizer train --out {cut} --force`"


def set_in(document: dict[str, Any], dotted: str, value: object) -> None:
    *parents, last = dotted.split(".")
    for key in parents:
        document = document[int(key)] if isinstance(document, list) else document[key]
    document[last] = value


def without(dotted: str) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        *parents, last = dotted.split(".")
        for key in parents:
            document = document[int(key)] if isinstance(document, list) else document[key]
        del document[last]

    return edit


def setting(dotted: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: set_in(document, dotted, value)


CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"

NO_TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {},
}

REFUSED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no model": (without("model"), "has no `model`"),
    "another model": (
        setting("model.type", "WordPiece"),
        'sets `model.type` to "WordPiece", which is not BPE or Unigram',
    ),
    "no type": (without("model.type"), "sets `model.type` to null, which is not BPE"),
    "a normalizer": (setting("normalizer", {"type": "NFKC"}), "sets `normalizer` to "),
    "dropout": (setting("model.dropout", 0.1), "sets `model.dropout` to 0.1, which `alm` does not support"),
    "unknown token": (setting("model.unk_token", "<unk>"), 'sets `model.unk_token` to "<unk>"'),
    "a prefix": (setting("model.continuing_subword_prefix", "##"), "sets `model.continuing_subword_prefix` to "),
    "a suffix": (setting("model.end_of_word_suffix", "</w>"), "sets `model.end_of_word_suffix` to "),
    "byte fallback": (setting("model.byte_fallback", True), "sets `model.byte_fallback` to true"),
    "another decoder": (setting("decoder", {"type": "WordPiece"}), 'sets `decoder` to {"type": "WordPiece"}'),
    "no decoder": (setting("decoder", None), "sets `decoder` to null"),
    "no split": (setting("pre_tokenizer", None), "sets `pre_tokenizer` to null, which is none of these splits: qwen2"),
    "a blank first": (setting("pre_tokenizer", GPT2 | {"add_prefix_space": True}), "sets `pre_tokenizer` to {"),
    "runs of digits": (
        setting(
            "pre_tokenizer",
            {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": False}, GPT2]},
        ),
        "sets `pre_tokenizer` to {",
    ),
    "other pattern": (
        setting("pre_tokenizer.pretokenizers.0.pattern", {"Regex": CL100K}),
        "sets `pre_tokenizer` to {",
    ),
    "other behavior": (
        setting("pre_tokenizer.pretokenizers.0.behavior", "Removed"),
        "sets `pre_tokenizer` to {",
    ),
    "prefix space": (
        setting("pre_tokenizer.pretokenizers.1.add_prefix_space", True),
        "sets `pre_tokenizer` to {",
    ),
    "no vocab": (without("model.vocab"), "has no `model.vocab`"),
    "no merges": (without("model.merges"), "has no `model.merges`"),
    "merges of old": (
        setting("model.merges", ["t h e"]),
        'has a `model.merges[0]` that is not a pair of tokens: "t h e"',
    ),
    "merge of numbers": (
        setting("model.merges", [[1, 2]]),
        "has a `model.merges[0]` that is not a pair of tokens: [1, 2]",
    ),
    "merge of unknown": (setting("model.merges", [["a", "日"]]), "has a `model.merges[0]` of an unknown token: "),
    "merge to unknown": (setting("model.merges", [["q", "q"]]), 'has a `model.merges[0]` of an unknown token: "qq"'),
    "hole in ids": (setting("model.vocab.Zz", 601), "has 601 tokens, none of them with id 600"),
    "id twice": (setting("model.vocab.Zz", 599), "has 601 tokens, none of them with id 600"),
    "id of text": (setting("model.vocab.Zz", "600"), "has an id that is not a whole number"),
    "not bytes": (setting("model.vocab.日", 600), "has a token that is not made of bytes: "),
    "no byte": (
        lambda document: document["model"].update(
            merges=[], vocab={{"!": "ZZ"}.get(token, token): id_ for token, id_ in document["model"]["vocab"].items()}
        ),
        "has no token for byte 0x21",
    ),
    "no end of text": (setting("added_tokens", []), "has none of `<|endoftext|>`, "),
    "no added tokens": (without("added_tokens"), "has none of `<|endoftext|>`, "),
    "added without id": (
        setting("added_tokens", [{"content": "<|endoftext|>"}]),
        "has an added token without `content` or `id`",
    ),
    "added number": (
        lambda document: document["added_tokens"].append({"content": 5, "id": 600}),
        "has an added token whose `content` is not text",
    ),
    "two ids": (
        setting("added_tokens.0.id", 7),
        "gives `<|endoftext|>` the ids 0 and 7",
    ),
    "words alone": (
        lambda document: document["added_tokens"][2].update(single_word=True, special=False),
        "sets `single_word` of `<|im_end|>` to true",
    ),
    "flag of text": (setting("added_tokens.2.lstrip", "no"), 'sets `lstrip` of `<|im_end|>` to "no"'),
    "no flag": (without("added_tokens.2.special"), "sets `special` of `<|im_end|>` to null"),
    "a first token": (
        setting("post_processor", {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}]}),
        'sets `post_processor` to {"type": "TemplateProcessing"',
    ),
    "several": (
        setting("post_processor", {"type": "Sequence", "processors": [NO_TEMPLATE, NO_TEMPLATE]}),
        'sets `post_processor` to {"type": "Sequence"',
    ),
    "no post-processor": (setting("post_processor", {"type": "ByteLevel", "x": 1}), "sets `post_processor` to "),
    "cut": (setting("truncation", {"max_length": 5}), 'sets `truncation` to {"max_length": 5}'),
    "padded": (setting("padding", {"pad_id": 3}), 'sets `padding` to {"pad_id": 3}'),
    "another version": (setting("version", "2.0"), 'sets `version` to "2.0"'),
    "another key": (setting("prefix", None), "has `prefix`, which `alm` does not know"),
}


@pytest.mark.parametrize("post_processor", [GPT2, NO_TEMPLATE, {"type": "Sequence", "processors": [GPT2, NO_TEMPLATE]}])
def test_a_post_processor_that_leaves_ids_alone(
    path: Path, tokenizer: Tokenizer, all_hard: list[str], post_processor: dict[str, Any]
) -> None:
    document = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**document, "post_processor": post_processor}), "utf-8")
    loaded, theirs = Tokenizer.load(path), tokenizers.Tokenizer.from_file(str(path))
    theirs.encode_special_tokens = True
    for text in all_hard:
        assert loaded.encode(text) == tokenizer.encode(text) == theirs.encode(text).ids


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_of_another_make(path: Path, case: str) -> None:
    edit, fault = REFUSED[case]
    document = json.loads(path.read_text("utf-8"))
    edit(document)
    path.write_text(json.dumps(document), "utf-8")
    error = refusal(path)
    assert error.message.startswith(f"`{path}` is not a tokenizer that `alm` can use: it {fault}")
    assert error.hint == "run `alm tokenizer train --out artifacts/tokenizer.json` to make one"


def test_json_that_is_no_object(path: Path) -> None:
    path.write_text("[1, 2]", "utf-8")
    assert refusal(path).message == f"`{path}` is not a tokenizer that `alm` can use: it does not hold a JSON object"


def test_more_tokens_than_can_be_numbered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "LARGEST_VOCAB_SIZE", 599)
    assert refusal(path).message.endswith("it has 600 tokens, more than 599")


# Many texts at once


@pytest.mark.sampled(4)
@pytest.mark.parametrize("workers", [1, 2, 3, 50])
def test_threads_give_the_ids_of_one(workers: int, tokenizer: Tokenizer, all_hard: list[str], soup: list[str]) -> None:
    texts = [*soup[:200], "", *all_hard, "x" * 10_000, *soup[200:]]
    encoded = tokenizer.encode_batch(texts, workers=workers)
    assert [encoded.ids[a:b].tolist() for a, b in pairwise(encoded.offsets)] == [tokenizer.encode(t) for t in texts]
    assert encoded.ids.dtype == np.int32
    assert encoded.offsets.dtype == np.int64
    assert tokenizer.encode_batch([], workers=workers).offsets.tolist() == [0]


def test_a_tokenizer_goes_to_another_process(tokenizer: Tokenizer, all_hard: list[str]) -> None:
    tokenizer.encode_batch(all_hard)
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.sha256 == tokenizer.sha256
    assert [copy.encode(text) for text in all_hard] == [tokenizer.encode(text) for text in all_hard]


@pytest.mark.sampled(1)
def test_more_words_than_are_remembered_encode_alike(tokenizer: Tokenizer) -> None:
    draw = random.Random(3)
    words = [
        " " + "".join(draw.choices("abcdefgh", k=draw.choice([2, 8, 9, 16, 17, 40, 64, 65, 200])))
        for _ in range(30_000)
    ]
    text = "".join(words * 2)
    expected = list(chain.from_iterable(map(tokenizer._content.model.word_encoder(), (w.encode() for w in words))))
    assert tokenizer.encode(text) == expected * 2


def test_long_words_that_differ_in_the_middle_alone(tokenizer: Tokenizer) -> None:
    words = [f" abcdefgh{middle}stuvwxyz" for middle in ("i", "j", "ij", "ji", "hhhhhhhhhh", "hhhhhhhhhs")]
    one_by_one = [ids for word in words * 2 for ids in tokenizer._content.model.word_encoder()(word.encode())]
    assert tokenizer.encode("".join(words * 2)) == one_by_one


@pytest.mark.parametrize("workers", range(1, 6))
def test_a_text_to_each_thread(workers: int, tokenizer: Tokenizer) -> None:
    texts = ["one two ", "three 4", " five   "]
    for count in range(4):
        encoded = tokenizer.encode_batch(texts[:count], workers=workers)
        assert [encoded.ids[a:b].tolist() for a, b in pairwise(encoded.offsets)] == [
            tokenizer.encode(text) for text in texts[:count]
        ]
