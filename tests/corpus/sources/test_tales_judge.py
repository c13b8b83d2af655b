"""The judge of tales: it finds no fault with any tale, and every fault that is planted."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from cases import for_each

from alm.corpus.sources.tales import cast
from alm.corpus.sources.tales.tell import tell

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[3] / "benchmarks")
    _JUDGE = importlib.import_module("tales_judge")
RULES, judge = _JUDGE.RULES, _JUDGE.judge

SHE_NAMES, HE_NAMES = [[name.text for name in cast.names() if name.pronouns == own] for own in (cast.SHE, cast.HE)]
KINDS = {name.text: name.kind.noun for name in cast.names()}
NAME = re.compile(r"\b(" + "|".join(SHE_NAMES + HE_NAMES) + r")\b")
CUTS = (None, 800, 500, 200)
# Of planted faults: both are named early in a tale; few tales have hardly a pronoun, and none that follows its subject.
MISSED, MISSED_PRONOUNS = 0.02, 0.04

RUBY = "Once upon a time, there was a small girl named Ruby. She was kind. "
BOTH = RUBY + "Her best friend was a big brown bear named Barnaby. "


@pytest.fixture(scope="module")
def tales() -> list[str]:
    return [tell(seed=99, index=index) for index in range(400)]


def rules(text: str) -> set[str]:
    return {fault.rule for fault in judge(text)}


def test_no_tale_is_at_fault_whole_or_cut_anywhere(tales: list[str]) -> None:
    at_fault = [(judge(tale[:cut]), tale[:cut]) for tale in tales for cut in CUTS if judge(tale[:cut])]
    assert at_fault == []


# What each rule is for


@for_each(
    "text, expected",
    [
        (RUBY, set()),
        (BOTH + "Barnaby laughed at his own joke, and Ruby scratched her nose.", set()),
        ("It rained all day. Nobody came.", {"cast"}),
        (RUBY + "Next door lived a little girl named Mia.", {"cast"}),
        (RUBY + "Next door lived a little boy named Tom.", {"cast"}),
        (BOTH + "Next door lived a little boy named Tom.", {"cast"}),
        (RUBY + "One day, Barnaby came by.", {"introduced"}),
        (RUBY + 'The newcomer came by. "I am Barnaby," said the newcomer.', set()),
        ("Once upon a time, there was a small bear named Ruby.", {"kind"}),
        ("Once upon a time, there was a small girl named Juno.", {"kind"}),
        ("Once upon a time, there was a small cat named Juno.", {"kind"}),
        ("Juno was a young fox who loved whistling. She was a kind fox who sang.", set()),
        ("Juno was a young fox who loved whistling. She was a kind cat who sang.", {"kind"}),
        ("Juno was a young fox who loved whistling. Juno was a kind cat who sang.", {"kind"}),
        (RUBY + "He sat down.", {"known"}),
        ("Ruby was a girl, and his home was a stone cottage.", {"known", "own"}),
        (RUBY + '"She ran past me, and he ran after her," said the goose.', set()),
        (BOTH + "Ruby scratched his nose.", {"own"}),
        (BOTH + "She held his breath.", {"own"}),
        (BOTH + "After a while, Ruby scratched his nose.", {"own"}),
        (BOTH + "If Ruby had known, he would have sung.", {"own"}),
        (BOTH + "With her, Barnaby shook her paw.", set()),
        (BOTH + 'Barnaby said, "I know." Ruby shook his head.', {"own"}),
        (BOTH + "Ruby gave him a flower.", set()),
        (BOTH + "Ruby was so sad that Barnaby shook his head.", set()),
        (RUBY + "She went to find her uncle. Her uncle smiled.", set()),
        (RUBY + "She went to find her uncle. Her aunt smiled.", {"elder"}),
        (BOTH + "His aunt smiled.", {"elder"}),
    ],
)
def test_a_rule_finds_what_it_is_for_and_nothing_else(text: str, expected: set[str]) -> None:
    assert rules(text) == expected


def test_what_was_not_told_to_its_end_is_not_judged() -> None:
    assert rules(RUBY + "Ruby shook his") == set()
    assert rules(RUBY + '"It was there. He said') == set()


def test_a_fault_names_its_rule_and_shows_its_words() -> None:
    (fault,) = judge(BOTH + "It rained. Ruby scratched his nose.")
    assert (fault.rule, fault.where) == ("own", "Ruby scratched his nose.")


# Faults planted in whole tales


def swapped_hero(tale: str, random: Random) -> str:
    """The hero has another name from its second mention on."""
    first = NAME.search(tale)
    assert first
    others = [name for name in (SHE_NAMES if first[0] in SHE_NAMES else HE_NAMES) if name not in tale]
    return tale[: first.end()] + re.sub(rf"\b{first[0]}\b", random.choice(others), tale[first.end() :])


def swapped_pronouns(tale: str, random: Random) -> str:
    """Whoever is `he` is `she` and the other way round, everywhere outside of speech; names stay."""
    swap = {"he": "she", "she": "he", "him": "her", "his": "her", "her": "his", "himself": "herself"}
    swap |= {"herself": "himself"}
    parts = re.split(r'("[^"]*")', tale)
    pattern = re.compile(r"\b(" + "|".join(swap) + r")\b", re.IGNORECASE)

    def other(match: re.Match[str]) -> str:
        word = swap[match[0].lower()]
        return word.capitalize() if match[0][0].isupper() else word

    return "".join(part if part.startswith('"') else pattern.sub(other, part) for part in parts)


def swapped_kind(tale: str, random: Random) -> str:
    """The first named is introduced as something else."""
    first = NAME.search(tale)
    assert first
    kind = KINDS[first[0]]
    return re.sub(rf"\b{kind}\b", "raccoon" if kind != "raccoon" else "girl", tale, count=1)


@pytest.mark.parametrize(
    ("plant", "found_by", "most"),
    [
        (swapped_hero, {"cast"}, MISSED),
        (swapped_pronouns, {"known", "own", "elder"}, MISSED_PRONOUNS),
        (swapped_kind, {"kind"}, MISSED),
    ],
)
def test_planted_faults_are_found(
    tales: list[str], plant: Callable[[str, Random], str], found_by: set[str], most: float
) -> None:
    random = Random(1)
    planted = [plant(tale, random) for tale in tales]
    changed = [text for text, tale in zip(planted, tales, strict=True) if text != tale]
    assert len(changed) > 0.9 * len(tales)
    missed = [text for text in changed if not rules(text) & found_by]
    assert len(missed) <= most * len(changed), missed[:3]


def test_every_rule_says_what_it_is() -> None:
    assert all(rule.__doc__ for rule in RULES.values())
