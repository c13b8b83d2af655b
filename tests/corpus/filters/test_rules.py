"""The rules of the filters, against hand-made texts and slow references."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import for_each

from alm import kinds
from alm.corpus.filters import Candidate, Drop, gopher_repetition
from alm.corpus.formats import Reading, jsonl
from alm.corpus.ngrams import most_frequent, repeated, repeated_characters
from alm.errors import InputError

PROSE = (
    "The old mill stood at the bend of the river, and nobody had ground corn in it for many years. "
    "Children went there to fish, because the water was deep below the wheel. "
    "One evening in autumn a stranger came down the road with a lantern and a heavy bag. "
    "He knocked, waited, and then opened the door that had been shut for so long. "
    "Inside he found dust, two broken chairs, and a letter that somebody had left for him. "
)


def outcome(kind: str, text: str, **keys: Any) -> str:
    """`keep`, `change`, or the reason."""
    module = kinds.load("alm.corpus.filters", kind)
    found = module.build(module.Config(kind=kind, **keys))(Candidate(text))
    if isinstance(found, Drop):
        return found.reason
    return "keep" if found.text == text else f"changed to {found.text}"


def test_good_prose_passes_every_filter_of_the_full_set() -> None:
    for kind in ("gopher_repetition", "gopher_quality", "c4", "fineweb", "mask"):
        assert outcome(kind, PROSE.strip()) == "keep"


@for_each(
    "kind, text, reason",
    [
        ("length", "two words", "length_too_few_words"),
        ("gopher_quality", "too short", "gopher_quality_too_few_words"),
        ("gopher_quality", "the of " + "a b " * 60, "gopher_quality_short_words"),
        ("gopher_quality", "the and " + "incomprehensibilities " * 60, "gopher_quality_long_words"),
        ("gopher_quality", PROSE + "# " * 30, "gopher_quality_hashes"),
        ("gopher_quality", PROSE + "... " * 30, "gopher_quality_ellipses"),
        ("gopher_quality", "\n".join(["- the thing and that " + PROSE[:40]] * 9), "gopher_quality_bullet_lines"),
        ("gopher_quality", "\n".join([PROSE[:90] + "…"] * 5), "gopher_quality_ellipsis_lines"),
        ("gopher_quality", PROSE + "2024 1999 " * 30, "gopher_quality_few_letters"),
        ("gopher_quality", "lorem dolor amet consectetur " * 20, "gopher_quality_few_stop_words"),
        ("gopher_repetition", "\n\n".join(["same here"] * 4 + ["other"]), "gopher_repetition_paragraphs"),
        ("gopher_repetition", "\n".join(["same"] * 4 + [PROSE]), "gopher_repetition_lines"),
        ("gopher_repetition", "spam eggs " * 40, "gopher_repetition_top_2_gram"),
        ("c4", "function() { return 1; }\n" + PROSE, "c4_curly_bracket"),
        ("c4", PROSE + "\nLorem Ipsum is a filler", "c4_lorem_ipsum"),
        ("c4", "Only one sentence stands here.", "c4_too_few_sentences"),
        ("fineweb", "\n".join(["no end here at all but long enough"] * 2), "fineweb_few_punctuated_lines"),
        ("fineweb", "Short.\nTiny.\nLittle.\n", "fineweb_short_lines"),
        (
            "fineweb",
            f"{PROSE}\nThe same long line stands here twice.\nThe same long line stands here twice.",
            "fineweb_repeated_lines",
        ),
        ("fineweb", "This line is a little longer now.\n\n\n\n\n\n\n\n", "fineweb_list"),
    ],
)
def test_each_rule_finds_what_it_is_for(kind: str, text: str, reason: str) -> None:
    keys = {"min_words": 3} if kind == "length" else {}
    assert outcome(kind, text, **keys) == reason


def test_c4_removes_lines_and_marks() -> None:
    text = f"{PROSE}[1]\nRead our privacy policy here.\nJavaScript must be on.\nMenu\n{'x' * 1001} a b c"
    assert outcome("c4", text) == f"changed to {PROSE.strip()}"


@for_each(
    "text, expected",
    [
        ("write to jo.doe+x@mail.example.org!", "changed to write to email@example.com!"),
        ("ping 8.8.8.8.", "changed to ping 192.0.2.1."),
        ("my router is 192.168.0.1, loopback 127.0.0.1", "keep"),
        ("version 1.2.3.4.5 and 999.8.8.8 and 1.2.3.4567", "keep"),
        ("a@b and @name", "keep"),
    ],
)
def test_addresses_are_masked(text: str, expected: str) -> None:
    assert outcome("mask", text) == expected


def test_mojibake_is_repaired_and_good_text_left_alone() -> None:
    assert outcome("mojibake", "The CafÃ© is â€œopenâ€\x9d") == "changed to The Café is “open”"
    for text in ("Café Ünïcödé “quotes” ﬁ ½ Ａ", "Â SÃO", "naïve"):
        assert outcome("mojibake", text) in ("keep", f"changed to {text}")


def test_languages_are_told_apart() -> None:
    german = "Der alte Mann ging jeden Morgen an den Fluss und sah den Schiffen nach, bis die Sonne hoch stand."
    assert outcome("language", PROSE) == "keep"
    assert outcome("language", german) == "language_not_kept"
    assert outcome("language", german, keep=["de", "en"]) == "keep"


def test_evaluation_items_are_found(tmp_path: Path) -> None:
    items = [{"question": PROSE[:200], "choices": {"text": ["yes", "a choice with exactly eight words in it"]}}]
    path = tmp_path / "eval.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, items)).encode()))
    words = PROSE[:200].split()

    def found(text: str) -> Candidate | Drop:
        module = kinds.load("alm.corpus.filters", "decontaminate")
        verdict: Candidate | Drop = module.build(module.Config(files=[str(path)]))(Candidate(text))
        return verdict

    hit = Drop("decontaminate_overlap", "eval.jsonl.gz#1")
    assert found("Prefix! " + " ".join(words[3:16]).upper() + " suffix") == hit
    assert isinstance(found(" ".join(words[3:15])), Candidate)
    assert found("so: a CHOICE with, exactly eight words in it.") == hit
    assert isinstance(found("a choice with exactly seven words in it"), Candidate)
    assert isinstance(found(""), Candidate)


@pytest.mark.parametrize(
    "values",
    [
        '"id": 184467440737095516160',
        '"id": 1e999',
        '"id": NaN',
        '"note": "a\tb"',
        '"note": "\\ud800"',
        '"note": ' + "[" * 500 + "1" + "]" * 500,
    ],
)
def test_evaluation_items_are_read_where_json_lines_are(tmp_path: Path, values: str) -> None:
    path = tmp_path / "eval.jsonl"
    path.write_text(f'{{{values}, "text": "a choice with exactly eight words in it"}}\n')
    assert len(list(jsonl.read(path, (), Reading()))) == 1
    module = kinds.load("alm.corpus.filters", "decontaminate")
    judge = module.build(module.Config(files=[str(path)]))
    assert judge(Candidate("so: a CHOICE with, exactly eight words in it.")) == Drop(
        "decontaminate_overlap", "eval.jsonl#1"
    )


@pytest.mark.parametrize(
    ("line", "said"), [(b'"caf\xe9"', "not UTF-8"), (b"[" * 100_000, "nested"), (b"{", "not JSON")]
)
def test_evaluation_items_that_cannot_be_read_are_named(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "eval.jsonl"
    path.write_bytes(line)
    module = kinds.load("alm.corpus.filters", "decontaminate")
    with pytest.raises(InputError, match=said):
        module.build(module.Config(files=[str(path)]))


def slow_repeated_characters(words: list[str], n: int) -> int:
    seen: set[tuple[str, ...]] = set()
    total = place = 0
    while place < len(words) - n + 1:
        gram = tuple(words[place : place + n])
        if gram in seen:
            total += sum(map(len, gram))
            place += n
        else:
            seen.add(gram)
            place += 1
    return total


@for_each("seed", range(60))
def test_repeated_ngrams_equal_a_slow_count(seed: int) -> None:
    draw = random.Random(seed)
    words = draw.choices([f"w{'x' * n}" for n in range(draw.choice([1, 2, 3, 8]))], k=draw.choice([0, 1, 2, 9, 60]))
    ends = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum([len(word) for word in words], dtype=np.int64)])
    for found in repeated(words, range(2, 11)):
        grams = [tuple(words[i : i + found.n]) for i in range(len(words) - found.n + 1)]
        counts = Counter(grams)
        assert found.positions.tolist() == [i for i, gram in enumerate(grams) if counts[gram] > 1]
        assert repeated_characters(found, ends) == slow_repeated_characters(words, found.n)
        if len(found.positions):
            top, number = counts.most_common(1)[0]
            position, most = most_frequent(found)
            assert (grams[position], most) == (top, number)


def test_hostile_texts_break_no_filter() -> None:
    texts = ["", " ", "\n", "!", "一二三" * 500, "😀" * 300, "word " * 100_000, "a\n" * 1000, "{", "\t\n \n"]
    for kind in kinds.names("alm.corpus.filters"):
        if kind != "decontaminate":
            for text in texts:
                outcome(kind, text)
    assert outcome("gopher_repetition", "word " * 100_000).startswith("gopher_repetition_")


def test_repetition_rules_do_not_stop_at_the_first() -> None:
    config = gopher_repetition.Config()
    broken = list(gopher_repetition.broken_rules(Candidate("spam eggs ham " * 400), config))
    assert {"gopher_repetition_top_2_gram", "gopher_repetition_5_grams", "gopher_repetition_10_grams"} <= set(broken)
