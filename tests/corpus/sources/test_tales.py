"""The built-in corpus: what every tale of it keeps to, whatever the seed."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterator
from statistics import median

import pytest

from alm.corpus.sources.tales import cast
from alm.corpus.sources.tales.data import FOLDER, Row, shared_tables
from alm.corpus.sources.tales.plot import PLOTS, Step, load, steps
from alm.corpus.sources.tales.story import Character, Story, moods
from alm.corpus.sources.tales.tell import set_scene, tell

GOLDEN_SHA256_OF_200 = "7e2dada3bac2e9f83ce52f13bfc999e5e54d0338ac7b1b11222902e5a1f6dd7a"
KIND_NOUNS = {name.kind.noun for name in cast.names()}
PRONOUNS = {name.text: name.pronouns for name in cast.names()}
NAME = re.compile(r"\b(" + "|".join(PRONOUNS) + r")\b")


@pytest.fixture(scope="module")
def tales() -> list[str]:
    return [tell(seed=1337, index=index) for index in range(10_000)]


@pytest.fixture(scope="module")
def some(tales: list[str]) -> list[str]:
    return tales[:5_000]


def sentences(text: str) -> list[str]:
    return [found.strip() for found in re.findall(r'[^.!?\n]+[.!?]+"?', text)]


def narration(tale: str) -> str:
    return re.sub(r'"[^"]*"', "", tale)


def offenders(tales: list[str], pattern: str) -> list[str]:
    found = re.compile(pattern)
    return [tale[max(0, hit.start() - 30) : hit.end() + 30] for tale in tales for hit in found.finditer(tale)]


def scripted(*numbers: float) -> Story:
    stream: Iterator[float] = iter(numbers)
    return Story(stream.__next__)


# Which tale is told


def test_a_tale_depends_on_nothing_but_its_seed_and_index() -> None:
    forwards = [tell(seed=5, index=index) for index in range(20)]
    backwards = [tell(seed=5, index=index) for index in reversed(range(20))]
    assert forwards == backwards[::-1]
    assert tell(seed=5, index=0) != tell(seed=6, index=0)


def test_the_first_200_tales_of_seed_1337_never_change(tales: list[str]) -> None:
    text = "\n\n\n".join(tales[:200])
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN_SHA256_OF_200


def test_no_two_of_10000_tales_are_the_same(tales: list[str]) -> None:
    assert len(set(tales)) == len(tales)


def test_no_long_sentence_makes_up_a_noticeable_share_of_the_corpus(tales: list[str]) -> None:
    counts = Counter(sentence for tale in tales for sentence in sentences(tale))
    total = counts.total()
    common = [sentence for sentence, count in counts.items() if len(sentence.split()) > 6 and count > total * 0.002]
    assert common == []


def test_tales_are_short_and_have_one_to_five_paragraphs(tales: list[str]) -> None:
    lengths = sorted(len(tale.split()) for tale in tales)
    assert lengths[0] >= 60
    assert lengths[-1] <= 300
    assert 120 <= median(lengths) <= 180
    assert {tale.count("\n\n") + 1 for tale in tales} == {1, 2, 3, 4, 5}


def test_the_vocabulary_is_small_enough_to_learn_and_large_enough_to_be_worth_it(some: list[str]) -> None:
    # 's is an ending, not a word
    vocabulary = Counter(word for tale in some for word in re.findall(r"[a-z]+", tale.lower().replace("'s ", " ")))
    assert 900 <= len(vocabulary) <= 1500
    assert sum(count >= 10 for count in vocabulary.values()) >= 0.98 * len(vocabulary)


# How it is written


def test_tales_are_plain_ascii_without_leftover_marks_of_their_shapes(some: list[str]) -> None:
    assert all(tale.isascii() for tale in some)
    assert offenders(some, r"[^A-Za-z0-9 \n.,!?'\"-]") == []


def test_spaces_and_marks_stand_where_they_should(some: list[str]) -> None:
    assert offenders(some, r"  | \n|\n | [.,!?]|[.,]{2}|,[.!?]|[.!?],|\n{3}|^\s|\s$") == []


def test_a_stands_before_consonants_and_an_before_vowels(some: list[str]) -> None:
    assert offenders(some, r"\b[Aa] (?=[aeiou]|hour\b)\w+") == []
    assert offenders(some, r"\b[Aa]n (?![aeiou]|hour\b)\w+") == []
    assert offenders(some, r"\ban? (?=uni|use|one\b|eu)\w+") == []


def test_no_word_is_doubled(some: list[str]) -> None:
    # "Very, very" with a comma is meant
    assert offenders(some, r"\b([A-Za-z]+) \1\b") == []


def test_every_sentence_begins_with_a_capital_letter(some: list[str]) -> None:
    assert offenders(some, r'\. "?[a-z]|\." [a-z]|[a-z][!?] "?[a-z]|, "[a-z]') == []


def test_every_paragraph_is_whole(some: list[str]) -> None:
    for tale in some:
        for paragraph in tale.split("\n\n"):
            assert re.match(r'"?[A-Z]', paragraph), paragraph
            assert re.search(r'[.!?]"?$', paragraph), paragraph
            assert paragraph.count('"') % 2 == 0, paragraph


def test_speech_is_quoted_in_pairs_that_never_touch_a_word(some: list[str]) -> None:
    for tale in some:
        for paragraph in tale.split("\n\n"):
            parts = paragraph.split('"')
            for outside, inside in zip(parts[0::2], parts[1::2], strict=False):
                assert outside == "" or outside[-1] == " ", paragraph
                assert inside[0].isalpha(), paragraph
                assert inside[-1] in ".,!?", paragraph


# Who is in it


def test_names_are_unique_and_never_a_word_of_the_tales(some: list[str]) -> None:
    assert len(PRONOUNS) == len(cast.names())
    lower = {word for tale in some for word in re.findall(r"\b[a-z]+\b", tale)}
    assert {name.lower() for name in PRONOUNS} & lower == set()


def test_narration_has_only_the_pronouns_of_those_it_names(tales: list[str]) -> None:
    forms = {own: {own.he, own.him, own.his, own.himself} for own in (cast.HE, cast.SHE)}
    for tale in tales:
        named = {PRONOUNS[name] for name in NAME.findall(tale)}
        used = set(re.findall(r"[a-z]+", narration(tale).lower()))
        strangers = {own for own, own_forms in forms.items() if used & own_forms} - named
        assert not strangers, tale


def test_two_named_characters_never_share_their_pronouns(some: list[str]) -> None:
    for tale in some:
        names = set(NAME.findall(tale))
        assert 1 <= len(names) <= 2, tale
        assert len({PRONOUNS[name] for name in names}) == len(names), tale


def test_whoever_has_a_name_is_of_the_same_kind_and_has_the_same_friend_in_every_tale(tales: list[str]) -> None:
    kinds: dict[str, set[str]] = {}
    friends: dict[str, set[str]] = {}
    for tale in tales:
        names = list(dict.fromkeys(NAME.findall(tale)))
        for name, other in zip(names, names[1:] + names[:1], strict=True):
            friends.setdefault(name, set()).add(other)
        for found in re.finditer(rf"(\w+) (?:named|called) {NAME.pattern}", tale):
            kinds.setdefault(found[2], set()).add(found[1])
    assert set(friends) == set(PRONOUNS)
    assert all(len(others) == 1 for others in friends.values())
    assert kinds == {name.text: {name.kind.noun} for name in cast.names()}


def test_whoever_has_a_name_is_introduced(some: list[str]) -> None:
    for tale in some:
        told = sentences(tale)
        for name in set(NAME.findall(tale)):
            first = next(sentence for sentence in told if re.search(rf"\b{name}\b", sentence))
            is_told = bool(KIND_NOUNS & set(re.findall(r"[a-z]+", first)))
            is_said = re.search(rf'"(My name is |I am )?{name}\b', first) and "ewcomer" in tale
            assert is_told or is_said, (name, first)


def test_the_hero_and_the_friend_are_introduced_at_the_beginning_and_once() -> None:
    for plot in PLOTS:
        for index in range(40):
            tale = tale_of(plot, index)
            names = list(dict.fromkeys(NAME.findall(tale)))
            told = sentences(tale)
            firsts = [
                next(n for n, sentence in enumerate(told) if re.search(rf"\b{name}\b", sentence)) for name in names
            ]
            assert len(names) == 2, (plot, tale)
            assert firsts[0] == 0, (plot, tale)
            # A newcomer has a name only when asked for it.
            assert (firsts[1] > 4) if plot == "new_friend" else (firsts[1] <= 3), (plot, tale)
            introduced = re.findall(rf"named {names[1]}\b|\b{names[1]}, an? ", tale)
            assert len(introduced) == (plot != "new_friend"), (plot, tale)


def test_the_thing_that_is_lost_is_the_thing_that_is_found() -> None:
    nouns = sorted((thing.noun for thing in shared_tables()["belongings"]), key=len, reverse=True)
    known = re.compile(r"\b[Tt]he (?:\w+ )?(" + "|".join(nouns) + r")\b")
    for index in range(300):
        tale = tale_of("lost_thing", index)
        assert len(set(known.findall(tale))) == 1, tale


def test_there_are_many_plots_and_each_keeps_the_laws_of_all_tales() -> None:
    assert len(PLOTS) >= 14
    assert sorted(PLOTS) == sorted(path.stem for path in FOLDER.glob("plots/*.toml"))
    for plot in PLOTS:
        told = [tale_of(plot, index) for index in range(40)]
        assert len(set(told)) == 40, plot
        assert offenders(told, r"[{}\[\]|]|  ") == [], plot
        assert all(60 <= len(tale.split()) <= 300 for tale in told), plot


def tale_of(plot: str, index: int) -> str:
    """A tale with a chosen plot."""
    story = Story(random.Random(f"plot/{index}").random)
    set_scene(story)
    load(f"plots/{plot}").tell(story)
    return story.text()


# How a story tells


def test_choices_may_nest_and_may_be_empty() -> None:
    assert scripted(0.9, 0.0).fill("[no|a [red|blue] hat]") == "no"
    assert scripted(0.9, 0.9).fill("[no|a [red|blue] hat]") == "a blue hat"
    assert scripted(0.9).fill("so[ very|] good") == "so good"


def test_a_shape_becomes_a_sentence_with_its_article_and_capitals() -> None:
    story = scripted(0.0)
    story.put(thing="a old boat", hero="Mia")
    story.say(('it was {thing}. "we can sail it," said {hero}. a owl said, "how?"',))
    assert story.text() == 'It was an old boat. "We can sail it," said Mia. An owl said, "How?"'


def test_several_never_picks_the_same_item_twice() -> None:
    assert scripted(0.0, 0.0, 0.99).several("abcd", 3) == ["a", "b", "d"]


def test_a_named_table_never_gives_the_same_row_twice_and_what_is_no_array_is_taken_as_it_is() -> None:
    story = scripted(0.0, 0.0, 0.99)
    story.put(fruits=["plums", "pears"], he="Tom", young=Row(noun="lamb"))
    chosen = {"one": "fruits", "two": "fruits", "three": ["a nut", "{he} and a nut"], "four": "young"}
    for slot, source in chosen.items():
        story.choose(slot, source)
    assert story.fill("{one} {two} {three} {four.noun}") == "plums pears Tom and a nut lamb"


@pytest.mark.parametrize(("number", "told"), [(0.1, "It rained."), (0.9, "The sun shone.")])
def test_a_step_happens_where_its_conditions_hold(number: float, told: str) -> None:
    story = scripted(number, 0.0)
    story.put(wet=True)
    Step(when=[0.5, "wet"], say=["It rained."], otherwise=(Step(say=["The sun shone."]),)).tell(story)
    assert story.text() == told


def test_a_step_may_say_two_of_its_sentences() -> None:
    story = scripted(0.1, 0.9, 0.0, 0.0, 0.0)
    Step(twice=0.5, say=["It rained.", "The sun shone."]).tell(story)
    assert story.text() == "The sun shone. It rained."


def test_a_step_has_no_key_without_a_meaning() -> None:
    with pytest.raises(TypeError, match="chanse"):
        steps([{"say": ["It rained."], "chanse": 0.5}])


def test_a_helper_speaks_without_pronouns_and_a_question_is_asked() -> None:
    story = scripted(0.0, 0.9, 0.0, 0.0)
    story.put(helper=shared_tables()["helpers"][0])
    story.speak("{helper.the}", ("Who are you",), moods()["ask"])
    assert story.text() == '"Who are you?" asked the owl.'


def test_a_pronoun_speaks_only_right_after_its_name() -> None:
    story = scripted(0.0, 0.0, 0.9, 0.0, 0.0)
    mia = Character("Mia", "she", "her", "her", "herself", kind="girl", a="a girl", ran="ran", hands="hands")
    story.put(hero=mia)
    story.say(("{hero} stood up.",))
    story.speak("hero", ("Come in",), moods()["kindly"])
    assert story.text() == 'Mia stood up. "Come in," she said.'


def test_a_gesture_can_stand_for_the_tag() -> None:
    story = scripted(0.0, 0.1, 0.0)
    story.put(helper=shared_tables()["helpers"][0])
    story.speak("{helper.the}", ("Come in",), moods()["kindly"])
    assert story.text() == 'The owl smiled. "Come in."'


def test_a_tale_with_less_leisure_leaves_more_out() -> None:
    hurried, leisurely = Story(lambda: 0.4, leisure=0.2), Story(lambda: 0.4)
    for story in (hurried, leisurely):
        story.say(("It rained.",))
        story.say(("It rained a lot.",), chance=0.5)
    assert hurried.text() == "It rained."
    assert leisurely.text() == "It rained. It rained a lot."
