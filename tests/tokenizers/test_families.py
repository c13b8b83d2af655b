"""Files in the forms of SmolLM, Qwen, Llama, TinyLlama and Mistral: small ones, with the library as oracle."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from unicodedata import combining, decomposition

import jinja2.sandbox
import pytest
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from alm.errors import InputError
from alm.tokenizers import _unicode, prepare
from alm.tokenizers.chat_format import ChatFormat, ConversationEncoder, Turn, beside, default_for
from alm.tokenizers.file import StreamDecoder, Tokenizer
from alm.tokenizers.special import BYTE_NAMES
from alm.tokenizers.vocabulary import has_smaller_sizes

Json = dict[str, Any]
SIGN = "▁"
PIECES = [
    "the cat", " the", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "1", "42", "'s", "'LL", "a", "b", "ing", ".", "!!",
    "é", "e\u0301", "q\u0323\u0307", "\u0301", "\u07fd", "\u0898", "\U00011930", "\U00011935", "\u1100\u1161\u11a8",
    "Å\u212b", "日本", "👍🏽", "½", "\u3000", "\x1d", SIGN, f" {SIGN}", "각",
    "<s>", "</s>", "<|eot|>", "<think>", "</think>", "<unk>", "<0x0A>",
]  # fmt: skip


def strings(count: int = 150) -> list[str]:
    """Random strings of the pieces and of any characters, from a fixed seed."""
    draw = random.Random(24)
    starts = [0x20, 0x80, 0x800, 0x3000, 0xE000, 0x10000]
    mixed = ["".join(draw.choices(PIECES, k=draw.randrange(1, 25))) for _ in range(count)]
    return mixed + ["".join(chr(draw.choice(starts) + draw.randrange(0x2800)) for _ in range(20)) for _ in range(count)]


def byte_level(split: pre_tokenizers.PreTokenizer, specials: Sequence[str], texts: list[str]) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = split, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=[*specials], show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return made


def smollm(texts: list[str], regexes: dict[str, str]) -> tokenizers.Tokenizer:
    digits, rest = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    return byte_level(pre_tokenizers.Sequence([digits, rest]), ["<|endoftext|>", "<|im_start|>"], texts)


def _split(regex: str) -> pre_tokenizers.PreTokenizer:
    rest = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False, trim_offsets=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), rest])


def qwen(texts: list[str], regexes: dict[str, str]) -> tokenizers.Tokenizer:
    made = byte_level(_split(regexes["qwen2"]), ["<|endoftext|>", "<|im_end|>"], texts)
    made.normalizer = normalizers.NFC()
    made.add_tokens([tokenizers.AddedToken(name, normalized=False) for name in ("<think>", "</think>")])
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    return made


def llama3(texts: list[str], regexes: dict[str, str]) -> tokenizers.Tokenizer:
    made = byte_level(_split(regexes["cl100k"]), [], texts)
    document = json.loads(made.to_str())
    document["model"]["ignore_merges"] = True
    # Tokens that no merge makes, and one behind another merge of its first bytes.
    for name in ("Ġthecat", "zzz", "ĠtheĠcat", "Ġ" * 70, "abcdefgh" * 9):
        document["model"]["vocab"].setdefault(name, len(document["model"]["vocab"]))
    made = tokenizers.Tokenizer.from_str(json.dumps(document))
    made.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot|>"])
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A",
        special_tokens=[("<|begin_of_text|>", made.token_to_id("<|begin_of_text|>"))],
    )
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return made


def sentencepiece(texts: list[str]) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    # Trained on words, so that no token reaches across a blank, as SentencePiece trains.
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<unk>", "<s>", "</s>", *BYTE_NAMES], show_progress=False, limit_alphabet=90
    )
    made.train_from_iterator(texts, trainer)
    document = json.loads(made.to_str())
    del document["added_tokens"][3:]
    model = document["model"]
    for left, right in ((SIGN, SIGN), (SIGN * 2, SIGN * 2), (SIGN, f"{SIGN}the")):  # runs of blanks
        if left in model["vocab"] and right in model["vocab"] and left + right not in model["vocab"]:
            model["vocab"][left + right] = len(model["vocab"])
            model["merges"].append([left, right])
    made = tokenizers.Tokenizer.from_str(json.dumps(document))
    made.decoder = decoders.Sequence(
        [decoders.Replace(SIGN, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made


def llama2(texts: list[str], regexes: dict[str, str]) -> tokenizers.Tokenizer:
    made = sentencepiece(texts)
    made.normalizer = normalizers.Sequence([normalizers.Prepend(SIGN), normalizers.Replace(" ", SIGN)])
    made.pre_tokenizer = None  # type: ignore[assignment]
    made.add_tokens([tokenizers.AddedToken("<think>", normalized=False), tokenizers.AddedToken("the cat")])
    return made


def mistral(texts: list[str], regexes: dict[str, str]) -> tokenizers.Tokenizer:
    made = sentencepiece(texts)
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.add_tokens([tokenizers.AddedToken("<think>", normalized=False, rstrip=True)])
    return made


def metaspace(texts: list[str], regexes: dict[str, str]) -> tokenizers.Tokenizer:
    made = mistral(texts, regexes)
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    return made


def blankless(texts: list[str], regexes: dict[str, str]) -> tokenizers.Tokenizer:
    made = sentencepiece(texts)
    made.normalizer = normalizers.Replace(" ", SIGN)
    made.pre_tokenizer = None  # type: ignore[assignment]
    made.decoder = decoders.Sequence([decoders.Replace(SIGN, " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_tokens([tokenizers.AddedToken(name, normalized=False) for name in ("\n\n", SIGN * 3, "<think>")])
    return made


FAMILIES: dict[str, Callable[[list[str], dict[str, str]], tokenizers.Tokenizer]] = {
    make.__name__: make for make in (smollm, qwen, llama3, llama2, mistral, metaspace, blankless)
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(
    request: pytest.FixtureRequest, prose: list[str], regexes: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path: Path = tmp_path_factory.mktemp("family") / f"{request.param}.json"
    # Without "<", so that no merge spells a token such as "<unk>", which would be refused.
    FAMILIES[request.param]([text.replace("<", "") for text in (*prose, *strings(50))], regexes).save(str(path))
    return path


def library(path: Path) -> tokenizers.Tokenizer:
    loaded = tokenizers.Tokenizer.from_file(str(path))
    loaded.encode_special_tokens = True
    return loaded


@pytest.mark.usefixtures("way")
def test_a_family_has_the_ids_of_the_library(family: Path, all_hard: list[str], soup: list[str]) -> None:
    ours, theirs = Tokenizer.load(family), library(family)
    texts = ["", " ", " a", "zzz thecat", *all_hard, *strings(), *soup[:100], " ".join(soup[:100]), "ab" * 3000]
    texts += [" " * 70, "abcdefgh" * 9, "abcdefgh" * 10]
    expected = [theirs.encode(text, add_special_tokens=False).ids for text in texts]
    assert [ours.encode(text) for text in texts] == expected
    batch = ours.encode_batch(texts * 2, workers=2)
    assert [batch.ids[start:stop].tolist() for start, stop in pairwise(batch.offsets)] == expected * 2
    for ids in expected:
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
        stream = StreamDecoder(ours)
        assert "".join(map(stream.feed, ids)) + stream.finish() == ours.decode(ids)
    ids = theirs.get_vocab(with_added_tokens=True)
    assert [ids[name] for name in ours.token_names] == [*range(ours.vocab_size)]


@pytest.mark.usefixtures("way")
def test_the_first_merges_of_a_family_are_a_smaller_tokenizer(
    family: Path, all_hard: list[str], tmp_path: Path
) -> None:
    """The library, with a file that has no more merges and tokens than those, gives the same tokens."""
    ours = Tokenizer.load(family)
    names, number = ours.token_names, ours.merges // 2
    assert has_smaller_sizes(ours)
    dropped = {names[id_] for id_ in {*ours.merged_ids} - {*ours.merged_ids[:number]}}
    document = json.loads(family.read_text("utf-8"))
    left_over = [name for name in document["model"]["vocab"] if name not in dropped]
    document["model"]["vocab"] = {name: id_ for id_, name in enumerate(left_over)}  # added tokens come after these
    document["model"]["merges"] = [[names[left], names[right]] for left, right in ours.merge_pairs[:number]]
    (tmp_path / "smaller.json").write_text(json.dumps(document), "utf-8")
    theirs, smaller = library(tmp_path / "smaller.json"), ours.with_merges(number)
    ids = theirs.get_vocab(with_added_tokens=True)
    for text in [*all_hard, *strings(50)]:
        found = [ids[names[id_]] for id_ in smaller.encode(text)]
        assert found == theirs.encode(text, add_special_tokens=False).ids


def test_a_family_is_saved_as_it_was(family: Path, tmp_path: Path) -> None:
    Tokenizer.load(family).save(tmp_path / "saved.json")
    assert (tmp_path / "saved.json").read_bytes() == family.read_bytes()


def test_a_family_s_ids_are_the_bytes_of_its_normalized_text(family: Path) -> None:
    tokenizer = Tokenizer.load(family)
    texts = strings(100)
    sizes = tokenizer.bytes_of(tokenizer.encode_batch(texts)).tolist()
    for text, size in zip(texts, sizes, strict=True):
        ids = tokenizer.encode(text)
        prefix = tokenizer.drops_first_blank and tokenizer.decode_bytes([*ids[:1]]) != tokenizer.token_bytes(ids[0])
        assert tokenizer.bytes_per_id[ids].sum() == size == len(tokenizer.decode_bytes(ids)) + prefix


def test_the_ends_of_texts(family: Path) -> None:
    tokenizer, theirs = Tokenizer.load(family), library(family)
    name = family.stem
    end = {"smollm": "<|endoftext|>", "qwen": "<|endoftext|>", "llama3": "<|end_of_text|>"}.get(name, "</s>")
    begin = {"smollm": None, "qwen": None, "llama3": "<|begin_of_text|>"}.get(name, "<s>")
    assert tokenizer.end_of_text_id == theirs.token_to_id(end)
    assert tokenizer.begin_of_text_id == (None if begin is None else theirs.token_to_id(begin))
    first = [] if begin is None else [theirs.token_to_id(begin)]
    assert tokenizer.prompt_ids("the cat") == [*first, *tokenizer.encode("the cat")]
    assert set(tokenizer.encode(f"{begin}{end} x")).isdisjoint(tokenizer.specials.values())


def test_an_end_that_no_name_says(family: Path, tmp_path: Path) -> None:
    text = family.read_text("utf-8")
    for name in ("<|endoftext|>", "<|end_of_text|>", "</s>"):
        text = text.replace(name, f"<|{len(name)}|>")
    path = tmp_path / "tokenizer.json"
    path.write_text(text, "utf-8")
    expected = Tokenizer.load(family).end_of_text_id
    with pytest.raises(InputError, match=r"has none of `<\|endoftext\|>`, .* among its special tokens"):
        Tokenizer.load(path)
    assert Tokenizer.load(path, end_of_text=expected).end_of_text_id == expected
    with pytest.raises(InputError, match="has no special token with id 500, which is said to end a text"):
        Tokenizer.load(path, end_of_text=500)


def test_a_blank_is_kept_where_a_text_continues(prose: list[str], regexes: dict[str, str], tmp_path: Path) -> None:
    llama2(prose, regexes).save(str(tmp_path / "t.json"))
    tokenizer = Tokenizer.load(tmp_path / "t.json")
    ids = tokenizer.encode("the mat")
    for continues, expected in ((False, "the mat"), (True, " the mat")):
        stream = StreamDecoder(tokenizer, continues=continues)
        assert "".join(map(stream.feed, ids)) + stream.finish() == expected


def test_many_added_tokens_in_a_long_text_take_linear_time() -> None:
    added = tuple(
        prepare.AddedToken(id_, content, special=False, lstrip=True, rstrip=True)
        for id_, content in enumerate(("<think>", "<", "<" * 500))
    )
    preparation = prepare.Preparation(added=added)
    assert len(preparation.parts("a <think> " * 100_000)) == 200_000
    assert preparation.parts(" <think> <think> b") == [0, 0, "b"]
    assert len(preparation.parts("<" * 200_000)) == 400


def test_nfc_is_the_library_s_for_every_character() -> None:
    form, new = normalizers.NFC(), {*_unicode_points(prepare._NEW_MARKS)}
    # Every character that a version of Unicode composes, takes apart or moves, and every 97th other one.
    points = [
        chr(point)
        for point in range(0x110000)
        if not 0xD800 <= point < 0xE000
        and (point in new or point % 97 == 0 or decomposition(chr(point)) or combining(chr(point)))
    ]
    for around in ("{}", "e{}\u0323", "e\u0301{}", "{}\u0323\u0301", "e{}\u0315\u0301", "q\u0301{}", "\U00011935{}"):
        for start in range(0, len(points), 500):
            text = "\n".join(map(around.format, points[start : start + 500]))
            assert prepare.nfc(text) == form.normalize_str(text)


def _unicode_points(table: str) -> list[int]:
    return [point for first, last in _unicode.ranges(table) for point in range(first, last + 1)]


def add(document: Json, token: str) -> None:
    document["model"]["vocab"][token] = len(document["model"]["vocab"])


UNFOLLOWED: dict[str, tuple[Callable[[Json], object], str]] = {
    "words of blanks": (
        lambda d: d.update(normalizer=None, pre_tokenizer={**METASPACE, "split": True}),
        "it sets `pre_tokenizer` to .*Metaspace.*whose `split` is false",
    ),
    "another sign": (
        lambda d: d.update(normalizer=None, pre_tokenizer={**METASPACE, "replacement": "_"}),
        "it sets `pre_tokenizer` to .*Metaspace",
    ),
    "only a blank first": (
        lambda d: d.update(normalizer={"type": "Prepend", "prepend": SIGN}),
        "it sets `normalizer` to .*Prepend.*it follows NFC",
    ),
    "another decoder": (lambda d: d.update(decoder={"type": "Metaspace"}), "it sets `decoder` to"),
    "across a blank": (
        lambda d: (add(d, f"e{SIGN}"), d["model"]["merges"].append(["e", SIGN])),
        'merges across a blank, to "e "',
    ),
    "a split behind it": (
        lambda d: d.update(pre_tokenizer=json.loads(pre_tokenizers.Whitespace().__getstate__())),
        "it sets `pre_tokenizer` to .*Whitespace.* after SentencePiece's normalizer",
    ),
    "a real blank": (lambda d: add(d, "e t"), 'has the token "e t" with a blank'),
    "merges ignored": (lambda d: d["model"].update(ignore_merges=True), "sets `model.ignore_merges` to true"),
    "two begins": (
        lambda d: d["post_processor"]["single"].insert(0, {"SpecialToken": {"id": "<s>", "type_id": 0}}),
        "it sets `post_processor` to",
    ),
    "an unknown begin": (lambda d: d["post_processor"].update(special_tokens={}), "it sets `post_processor` to"),
}
METASPACE = {"type": "Metaspace", "replacement": SIGN, "prepend_scheme": "first", "split": False}


@pytest.mark.parametrize("name", UNFOLLOWED)
def test_what_is_not_followed_is_refused_by_name(
    name: str, prose: list[str], regexes: dict[str, str], tmp_path: Path
) -> None:
    document = json.loads(llama2(prose, regexes).to_str())
    edit, fault = UNFOLLOWED[name]
    del document["added_tokens"][3:]
    edit(document)
    (tmp_path / "t.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(InputError, match=fault):
        Tokenizer.load(tmp_path / "t.json")


MODELS = Path(os.environ.get("ALM_MODELS", Path(__file__).parents[2] / ".models"))


@pytest.mark.models
@pytest.mark.parametrize("path", sorted(MODELS.rglob("tokenizer.json")), ids=lambda path: str(path.relative_to(MODELS)))
def test_a_real_file_has_the_ids_of_the_library(path: Path, all_hard: list[str], soup: list[str]) -> None:
    if "gemma" in str(path):
        with pytest.raises(InputError, match="it sets `pre_tokenizer` to"):
            Tokenizer.load(path)
        return
    ours, theirs = Tokenizer.load(path), library(path)
    texts = ["", " a", *all_hard, *strings(5000), *soup]
    batch = ours.encode_batch(texts)
    found = [batch.ids[start:stop].tolist() for start, stop in pairwise(batch.offsets)]
    assert found == [each.ids for each in theirs.encode_batch(texts, add_special_tokens=False)]
    assert [ours.decode(ids) for ids in found] == [theirs.decode(ids, skip_special_tokens=False) for ids in found]


def test_no_message_of_a_family_becomes_a_control_token(family: Path) -> None:
    """And of an answer every byte is learned, with the token that ends it, whatever stands around it."""
    tokenizer = Tokenizer.load(family)
    end = next(name for name, id_ in tokenizer.specials.items() if id_ == tokenizer.end_of_text_id)
    turns = {role: Turn(before=f"[{role}]\n", after=f" {end}\n") for role in ("system", "user", "assistant")}
    chat = ChatFormat(form="zephyr", **turns, opening="[assistant]\n")
    names = [*tokenizer.specials, *tokenizer.found_in_text, "<0x41>"]
    control = {
        *tokenizer.specials.values(),
        *(i for name, i in tokenizer.found_in_text.items() if name.strip(f" {SIGN}\n")),
    }
    encoder = ConversationEncoder(chat, tokenizer)
    for name in names:
        for text in (name, f"a {name} b", f"{name}\n{name}{end}[assistant]\nno"):
            messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
            found = encoder.encode([messages, messages])[1]
            ids = found.ids.tolist()
            assert [id_ for id_ in ids if id_ in control] == [tokenizer.end_of_text_id] * 2
            learned = tokenizer.decode_bytes(found.ids[found.is_trained]).decode()
            assert learned.replace(SIGN, " ").strip() == f"{text} {end}".replace(SIGN, " ").strip()
            assert ids == chat.encode(tokenizer, messages, asks=False)


def test_a_family_without_turns_gets_some_that_its_template_writes(family: Path) -> None:
    tokenizer = Tokenizer.load(family)
    chat = default_for(tokenizer)
    template = chat.template()
    assert template is not None
    family.with_name("chat_template.jinja").write_text(template)
    assert beside(family, tokenizer) == chat
    talk = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    for messages in (talk, talk[1:], talk[1:2]):
        for asks in (True, False):
            written = environment.from_string(template).render(messages=messages, add_generation_prompt=asks)
            assert chat.render(messages, asks=asks) == written
    ids = chat.encode(tokenizer, talk, asks=False)
    assert chat.end_ids(tokenizer)[0] in ids
