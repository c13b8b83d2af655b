"""Dialogues about the built-in tales, and the judge of answers in them."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest

from alm.corpus.conversations import Message
from alm.corpus.document import Document
from alm.corpus.sources import tale_dialogues
from alm.corpus.sources.tales import cast
from alm.corpus.sources.tales.data import Row
from alm.corpus.sources.tales.dialogues import Tale, dialogue, phrases, request, tale, tale_of
from alm.corpus.sources.tales.judge import KINDS, Case, cases, judge
from alm.corpus.sources.tales.plot import PLOTS

TROUBLES: list[Row] = phrases()["troubles"]


@pytest.fixture(scope="module")
def dialogues() -> list[tuple[Message, ...]]:
    return [dialogue(seed=1337, index=index) for index in range(300)]


@pytest.fixture(scope="module")
def fifty() -> list[Case]:
    return cases(50)


def some(trouble: Row, count: int = 40) -> list[Tale]:
    return [tale_of(random.Random(f"{trouble.plot}/{number}").random, trouble) for number in range(count)]


def test_a_dialogue_depends_on_nothing_but_its_seed_and_index(dialogues: list[tuple[Message, ...]]) -> None:
    assert dialogue(seed=1337, index=7) == dialogues[7]
    assert dialogue(seed=1338, index=7) != dialogues[7]


def test_no_two_dialogues_are_the_same_and_each_has_tales_of_its_own(dialogues: list[tuple[Message, ...]]) -> None:
    assert len(set(dialogues)) == len(dialogues)
    tales = [each.content for messages in dialogues for each in messages if "\n\n" in each.content]
    assert len(set(tales)) == len(tales)


def test_user_and_assistant_take_turns_and_the_assistant_has_the_last_one(
    dialogues: list[tuple[Message, ...]],
) -> None:
    for messages in dialogues:
        assert messages[0].role == "user"
        assert messages[-1].role == "assistant"
        assert all(one.role != other.role for one, other in pairwise(messages))
        assert all(each.content == each.content.strip() and "{" not in each.content for each in messages)


def test_requests_have_several_phrasings(dialogues: list[tuple[Message, ...]]) -> None:
    openings = {re.sub(r" about .*", "", messages[0].content) for messages in dialogues}
    assert len(openings) > 20


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.plot)
def test_every_tale_shows_the_trouble_that_a_request_names(trouble: Row) -> None:
    assert trouble.plot in PLOTS
    for made in some(trouble):
        assert all(any(word in made.text.lower() for word in words) for words in made.shows), made.text
        assert len(made.short) < len(made.text) / 2


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.plot)
def test_what_shows_a_trouble_is_in_the_request(trouble: Row) -> None:
    slots = re.findall(r"\{[^}]+\}", " ".join(trouble.shows))
    assert set(slots) <= {getattr(trouble, "of", "")}
    assert getattr(trouble, "of", "") in trouble.wanted


def test_answers_are_what_the_tale_says() -> None:
    [fears] = [trouble for trouble in TROUBLES if trouble.plot == "fear_overcome"]
    for made in some(fears):
        answers = {question.asked.rstrip("?").lower(): question.answer for question in made.questions}
        fear = made.trouble.removeprefix("fear_overcome ")
        assert f"{made.hero} was afraid of {fear}." in answers.values()
        friends = next(({a.text, b.text} for a, b in cast.pairs() if made.hero in (a.text, b.text)))
        [friend] = friends - {made.hero}
        assert f"{made.hero}'s friend is {friend}." in answers.values()


def test_a_place_is_asked_for_only_where_the_tale_names_no_other() -> None:
    asked = 0
    for trouble in TROUBLES:
        for made in some(trouble, 10):
            for question in made.questions:
                if question.answer.startswith("It happens"):
                    asked += 1
                    assert made.story.fill("{place.the}") in made.text
    assert asked > 10


def test_the_pairs_of_the_judge_are_in_no_dialogue(fifty: list[Case]) -> None:
    assert all(case.tale.is_kept_back for case in fifty)
    assert not any(tale(random.Random(str(number)).random).is_kept_back for number in range(50))


def test_the_judge_asks_for_tales_questions_and_short_versions(fifty: list[Case]) -> None:
    assert [case.kind for case in fifty] == [*KINDS] * 5
    assert [case.messages for case in cases(3)] == [case.messages for case in fifty[:3]]
    assert all(case.messages[-1].role == "user" for case in fifty)


def test_the_generators_own_answers_are_right(fifty: list[Case]) -> None:
    for case in fifty:
        assert judge(case, case.right or case.tale.text, has_ended=True) == ()


def test_what_is_wrong_with_an_answer_is_named() -> None:
    [case] = [case for case in cases(20) if case.kind == "tale"][:1]
    right = case.tale.text
    assert judge(case, right, has_ended=False) == ("end",)
    assert judge(case, f"{right}\nUser: And then?", has_ended=True) == ("role",)
    assert judge(case, f"{right}<|im_start|>user", has_ended=True) == ("role",)
    assert judge(case, "", has_ended=True) == ("hero", "trouble")
    other = next(name.text for name in cast.names() if name.kind.noun != case.tale.kind)
    assert "hero" in judge(case, f"{other} was there. {right}", has_ended=True)


def test_a_question_has_one_right_answer(fifty: list[Case]) -> None:
    [case] = [case for case in fifty if case.kind == "question"][:1]
    assert case.right is not None
    assert judge(case, f"{case.right}\n", has_ended=True) == ()
    assert judge(case, case.right.replace(".", ", I think."), has_ended=True) == ("answer",)


def test_the_tale_of_another_trouble_is_wrong() -> None:
    tales = [made for trouble in TROUBLES for made in some(trouble, 2)]
    cases_of_tales = [case for case in cases(20) if case.kind == "tale"]
    pairs = [
        "trouble" in judge(case, made.text, has_ended=True)
        for case in cases_of_tales
        for made in tales
        if made.trouble.split()[0] != case.tale.trouble.split()[0]
    ]
    assert sum(pairs) > 0.95 * len(pairs)


def test_a_request_for_a_hero_alone_and_for_any_tale() -> None:
    made = tale(random.Random("one").random)
    assert made.wanted not in request(made, "with_hero")
    assert made.kind not in request(made, "")


def test_the_source_yields_conversations() -> None:
    config = tale_dialogues.Config(documents=5, seed=3)
    [part] = tale_dialogues.survey(config).parts
    documents = list(tale_dialogues.read(config, [part]))
    assert len(documents) == 5
    assert all(isinstance(each, Document) and each.conversation for each in documents)
    assert documents[2] == next(iter(list(tale_dialogues.read(config, [part]))[2:]))


def test_a_short_version_is_right_with_the_hero_and_the_trouble_of_the_tale(fifty: list[Case]) -> None:
    for case in [case for case in fifty if case.kind == "shorter"]:
        named = f"{case.tale.hero} was somebody who {case.tale.past}."
        assert judge(case, named, has_ended=True) == ()
        assert judge(case, case.tale.text, has_ended=True) == ("trouble",)
        assert "trouble" in judge(case, f"{case.tale.hero} was somebody who flew to the moon.", has_ended=True)
