"""BPE against arithmetic by hand and against the library's own trainer and model."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import tokenizers
from cases import for_each

from alm import kinds
from alm.config.base import Config, OfKind
from alm.errors import ConfigError
from alm.events import Event, Progressed
from alm.tokenizers import alphabet
from alm.tokenizers.models import bpe
from alm.tokenizers.pretokenize import count_words
from alm.tokenizers.words import PADDING, Words

Train = Callable[..., tokenizers.Tokenizer]

SMALLEST = 272

pytestmark = pytest.mark.usefixtures("way")


def library_merges(trained: tokenizers.Tokenizer) -> list[tuple[int, int]]:
    model = json.loads(trained.to_str())["model"]
    return [(model["vocab"][left], model["vocab"][right]) for left, right in model["merges"]]


def library_vocab(trained: tokenizers.Tokenizer) -> list[str]:
    vocab = trained.get_vocab()
    return sorted(vocab, key=vocab.__getitem__)


def written(merges: list[bpe.Merge]) -> list[str]:
    return [alphabet.to_characters(token) for token in bpe.all_tokens(merges)]


def learned(words: Mapping[str, int], vocab_size: int) -> list[bpe.Merge]:
    return bpe.learn_merges(Words.of(words), bpe.base_tokens(), vocab_size=vocab_size)


def encoder_of(way: str, merges: Sequence[tuple[int, int, int]]) -> Callable[[bytes], list[int]]:
    """Encodes a word of letters."""
    return _encode_with(way, bpe.Model(bpe.all_tokens([(left, right) for left, right, _ in merges]), merges))


def _encode_with(way: str, model: bpe.Model) -> Callable[[bytes], list[int]]:
    if way == "plain":
        return model.word_encoder()
    native = model.native_encoder("qwen2")

    def encode(word: bytes) -> list[int]:
        data = np.frombuffer(word + bytes(PADDING), dtype=np.uint8)
        ids, offsets = native.encode(data, np.array([0, len(word)]))
        assert offsets.tolist() == [0, len(ids)]
        return ids.tolist()

    return encode


def same_as_library(words: Counter[str], trained: tokenizers.Tokenizer, vocab_size: int) -> list[bpe.Merge]:
    merges = learned(words, vocab_size)
    assert merges == library_merges(trained)
    assert written(merges) == library_vocab(trained)
    return merges


def test_merges_by_hand() -> None:
    # Ids: byte b is 16 + (b - "!"), so b 81, g 86, h 87, n 93, p 95, s 98, u 100; merges from 272 on.
    words = {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}
    b, g, h, n, p, s, u = 81, 86, 87, 93, 95, 98, 100
    expected = [
        (u, g),  # 272 ug:   hug 10 + pug 5 + hugs 5 = 20; un has 16, hu 15, pu 17
        (u, n),  # 273 un:   pun 12 + bun 4 = 16
        (h, 272),  # 274 hug:  10 + 5 = 15
        (p, 273),  # 275 pun:  12
        (p, 272),  # 276 pug:  5, as often as hug+s, and 95 < 274
        (274, s),  # 277 hugs: 5
        (b, 273),  # 278 bun:  4
    ]
    assert learned(words, 1000) == expected
    assert learned(words, SMALLEST + 3) == expected[:3]


def test_encoding_by_hand(way: str) -> None:
    # Merges: 272 ug, 273 un, 274 hug, 275 hugs.
    u, g, h, n, s, b = 100, 86, 87, 93, 98, 81
    encode = encoder_of(way, [(u, g, 272), (u, n, 273), (h, 272, 274), (274, s, 275)])
    assert encode(b"hugs") == [275]  # h u g s -> h ug s -> hug s -> hugs
    assert encode(b"bug") == [b, 272]
    assert encode(b"ungun") == [273, g, 273]  # un before ng, which is no merge
    assert encode(b"") == []


def test_overlaps_are_counted_from_the_left() -> None:
    # " " is byte 0x20, hidden: id 16 + 188 + 32 = 236. Five make 272 272 and one left
    # over; then 272+space and 272+272 are as frequent, and 236 < 272: the pair with the space is first.
    space = 236
    assert learned({" " * 5: 3}, 1000) == [(space, space), (272, space), (272, 273)]


@pytest.mark.parametrize("vocab_size", [SMALLEST, SMALLEST + 1, 300, 400, 2000])
def test_hand_made_corpora_train_as_in_the_library(vocab_size: int, prose: list[str], library_train: Train) -> None:
    same_as_library(count_words(prose, "qwen2"), library_train(prose, vocab_size), vocab_size)


@pytest.mark.parametrize("letters", ["a", "ab", "a ", "abc", "a\nb ", "éa", " 👍", "abcdefgh"])
def test_adversarial_corpora_train_as_in_the_library(letters: str, library_train: Train) -> None:
    # Few letters make overlapping runs and many ties. Each text is one word, so nothing hides a run.
    draw = random.Random(letters)
    for _ in range(30):
        texts = ["".join(draw.choices(letters, k=draw.randrange(1, 24))) for _ in range(draw.randrange(1, 30))]
        texts += ["   ", "aaa   aaa", "ababab"] * draw.randrange(4)
        size = SMALLEST + draw.randrange(1, 60)
        same_as_library(Counter(texts), library_train(texts, size, whole=True), size)


def test_random_split_text_trains_as_in_the_library(soup: list[str], library_train: Train) -> None:
    for start in range(0, 600, 60):
        texts = soup[start : start + 60]
        same_as_library(count_words(texts, "qwen2"), library_train(texts, 700), 700)


def test_a_merge_that_spells_a_special_token_is_that_token(library_train: Train) -> None:
    texts = ["<|pad|>", "<|pad|>", "<|pad|><|pad|>", "x<|pad|>y", "pad"]
    merges = same_as_library(Counter(texts), library_train(texts, 290, whole=True), 290)
    assert 3 in {id_ for merge in merges for id_ in merge}


def test_counts_beyond_32_bits_keep_their_order() -> None:
    # a+b occurs 2**40 + 1 times and c+d 2**40: only whole counts tell them apart.
    a, b, c, d = (alphabet.ids()[ord(letter)] for letter in "abcd")
    assert learned({"cd": 2**40, "ab": 2**40 + 1}, 1000) == [(a, b), (c, d)]
    assert learned({"ab": 2**40, "cd": 2**40 + 1}, 1000) == [(c, d), (a, b)]


@pytest.mark.sampled(1)
def test_a_long_run_of_one_letter(way: str) -> None:
    # 2**18 letters halve 18 times: tokens of 2, 4, ... 2**18 bytes. One letter less is one token of each size.
    merges = learned({"a" * 2**18: 1}, 1000)
    assert list(map(len, bpe.all_tokens(merges)[SMALLEST:])) == [2**k for k in range(1, 19)]
    made = [(left, right, SMALLEST + rank) for rank, (left, right) in enumerate(merges)]
    encode = encoder_of(way, made)
    assert encode(b"a" * (2**18 - 1)) == [*range(SMALLEST + 16, SMALLEST - 1, -1), alphabet.ids()[ord("a")]]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("length", [12, 99, 100, 101, 102, 400])
def test_words_encode_as_in_the_library_whatever_the_order_of_merges(
    length: int, way: str, library_train: Train
) -> None:
    # Shuffled, a merge may come before the ones that make its parts: then the order of joining shows.
    draw = random.Random(length)
    for letters in ("ab", "abc", "ab é" if way == "plain" else "abcdéф"):  # compiled, a text is split first
        for round_ in range(10):
            texts = ["".join(draw.choices(letters, k=length)) for _ in range(8)]
            trained = library_train(texts, 310, whole=True)
            merges = json.loads(trained.to_str())["model"]["merges"]
            if round_ > 0:
                draw.shuffle(merges)
            vocab = trained.get_vocab()
            trained.model = tokenizers.models.BPE(vocab=vocab, merges=[tuple(merge) for merge in merges])
            tokens = sorted(vocab, key=vocab.__getitem__)
            model = bpe.Model(
                [alphabet.to_bytes(token) if id_ > 15 else token.encode() for id_, token in enumerate(tokens)],
                [(vocab[a], vocab[b], vocab[a + b]) for a, b in merges],
            )
            encode = _encode_with(way, model)
            for text in (*texts, *("".join(draw.choices(letters, k=length)) for _ in range(8))):
                assert encode(text.encode()) == trained.encode(text).ids


def test_ends_early_when_no_pair_is_left() -> None:
    assert learned({"ab": 1, "c": 5}, 32_000) == [(80, 81)]
    assert learned({}, 32_000) == []


def test_progress_counts_merges_up_to_what_was_asked() -> None:
    events: list[Event] = []
    draw = random.Random(5)
    words = {"".join(draw.choices("abcdefgh", k=20)): 1 for _ in range(200)}
    model = bpe.train(Words.of(words), config=bpe.Config(), vocab_size=SMALLEST + 600, on_event=events.append)
    events = [event for event in events if isinstance(event, Progressed)]
    done = [event.done for event in events]
    assert len(model.merges) == 600
    assert done == sorted(done)
    assert done[-1] == 600
    assert len(done) > 1
    assert all(event == Progressed("merges", event.done, 600, "merges") for event in events)  # type: ignore[attr-defined]


@for_each("vocab_size", [-1, 271, bpe.LARGEST_VOCAB_SIZE + 1])
def test_a_size_that_cannot_be_is_refused(vocab_size: int) -> None:
    with pytest.raises(ConfigError, match=r"a BPE vocabulary has 272 to 1,114,112 tokens, not") as caught:
        bpe.train(Words.of({"ab": 1}), config=bpe.Config(), vocab_size=vocab_size)
    assert "--vocab-size" in str(caught.value.hint)


def test_it_is_a_kind_with_a_strict_config() -> None:
    assert "bpe" in kinds.names("alm.tokenizers.models")
    config: Config = OfKind("alm.tokenizers.models").validate("bpe")
    assert config == bpe.Config(kind="bpe", pattern="qwen2")
    assert kinds.module_of(config) is bpe
    with pytest.raises(ValueError, match="pattern"):
        bpe.Config(pattern="gpt3")  # type: ignore[arg-type]
