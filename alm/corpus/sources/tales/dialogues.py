"""Dialogues about tales: requests, tales, questions about them, and answers that follow from what the tale was made of.

A dialogue asks for a tale, about a hero, a trouble, or both. The tale is the answer. Then come questions about it, a
request for a short version, or for another tale. What is said is in `data/dialogues.toml`.

One in `_KEPT_BACK` pairs of a kind of hero and a trouble is kept back: no dialogue of any seed asks for it. A model
that answers such a request has not seen it before.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from alm.corpus.conversations import Message
from alm.corpus.sources.tales import cast
from alm.corpus.sources.tales.data import Row, read, rows, shared_tables
from alm.corpus.sources.tales.plot import load
from alm.corpus.sources.tales.story import Story, as_written
from alm.corpus.sources.tales.tell import set_scene

_LEISURE = 0.0  # tales of what the plot needs alone: two of them and some questions fit into a context
_SCENES = {"introduction": "dialogue_introduction", "opening": "dialogue_opening"}
_KEPT_BACK = 8
_GREETS, _THANKS, _SHORTENS, _ANOTHER, _PARTS = 0.15, 0.12, 0.5, 0.25, 0.2
_SHORT, _ASKS_OF_SHORT = 0.5, 0.7
_LOWER, _WITHOUT_END = 0.15, 0.25
_MOST_QUESTIONS = 4
_WAYS = ("with_both", "with_both", "with_both", "with_hero", "with_trouble", "")  # to ask for a tale
_SHORT_WAYS = ("with_both", "with_both", "with_both", "with_trouble")


@dataclass(frozen=True)
class Question:
    """A question about a tale, and the only right answer. `of_short` says whether the short version has it, too."""

    asked: str
    answer: str
    of_short: bool


@dataclass(frozen=True)
class Tale:
    """A tale of which the hero and the trouble are known. Its first sentence names both.

    `wanted` completes "a fox who ...", and so does `past`, as the tale says it. What follows the first sentence holds
    one of the words of each of `shows`, in lower case.
    """

    text: str
    story: Story
    hero: str
    kind: str
    trouble: str
    wanted: str
    past: str
    shows: tuple[tuple[str, ...], ...]
    short: str
    questions: tuple[Question, ...]

    @property
    def is_kept_back(self) -> bool:
        """Whether no dialogue asks for the pair of hero and trouble."""
        return zlib.crc32(f"{self.kind}/{self.trouble}".encode()) % _KEPT_BACK == 0


@cache
def phrases() -> dict[str, Any]:
    """Return the tables of the dialogues."""
    return {table: rows(value) for table, value in read("dialogues").items()}


def dialogue(*, seed: int, index: int) -> tuple[Message, ...]:
    """Return one dialogue. The same `seed` and `index` give the same on every platform and Python version.

    Every dialogue holds a tale of its own.
    """
    numbers = random.Random(f"dialogue/{seed}/{index}").random
    return tuple(_messages(numbers))


def tale(numbers: Callable[[], float], *, is_kept_back: bool = False, other_than: str = "") -> Tale:
    """Return a tale about a hero and a trouble that are kept back, or not, and not about the hero `other_than`."""
    troubles: list[Row] = phrases()["troubles"]
    while True:
        made = tale_of(numbers, troubles[int(numbers() * len(troubles))])
        if made.is_kept_back == is_kept_back and made.hero != other_than:
            return made


def tale_of(numbers: Callable[[], float], trouble: Row) -> Tale:
    """Return a tale of a trouble, which is a row of the table `troubles`."""
    story = Story(numbers, leisure=_LEISURE, scenes=_SCENES)
    set_scene(story)
    first = phrases()["told_first"].replace("{past}", trouble.past)
    story.put(told_first=first)
    load(f"plots/{trouble.plot}").tell(story)
    text = story.text()
    return Tale(
        text,
        story,
        hero=story.fill("{hero}"),
        kind=story.fill("{hero.kind}"),
        trouble=f"{trouble.plot} {story.fill(getattr(trouble, 'of', ''))}",
        wanted=story.fill(trouble.wanted),
        past=as_written(f"x {story.fill(trouble.past)}")[2:],
        shows=tuple(tuple(story.fill(words).lower().split("|")) for words in trouble.shows),
        short=as_written(story.fill(f"{first} {trouble.ending}")),
        questions=tuple(_questions(story, trouble, text)),
    )


def request(made: Tale, way: str, *, table: str = "requests") -> str:
    """Return a request for a tale: with both hero and trouble, with one of them, or open (no `way`)."""
    story = made.story
    if not way:
        return _asked(story, "openings")
    story.put(wanted=made.wanted)
    story.put(who=story.fill(story.pick(phrases()[way])))
    return _asked(story, table)


def shorten(made: Tale) -> str:
    """Return a request for a short version of a tale."""
    return _asked(made.story, "shorter")


def _messages(numbers: Callable[[], float]) -> Iterator[Message]:
    made = tale(numbers)
    if made.story.happens(_GREETS):
        yield from _pair(_asked(made.story, "greetings"), phrases()["greeted"])
    if made.story.happens(_SHORT):
        yield from _short_tales(made, numbers)
    else:
        yield from _long_tales(made, numbers)
    if made.story.happens(_THANKS):
        yield from _pair(_asked(made.story, "thanks"), phrases()["thanked"])
    if made.story.happens(_PARTS):
        yield from _pair(_asked(made.story, "goodbyes"), phrases()["parted"])


def _long_tales(made: Tale, numbers: Callable[[], float]) -> Iterator[Message]:
    yield from _pair(request(made, made.story.pick(_WAYS)), made.text)
    if not made.story.happens(_ANOTHER):
        yield from _about(made)
    else:
        other = tale(numbers, other_than=made.hero)
        yield from _pair(_asked(other.story, "others"), other.text)
        yield from _about(other)


def _short_tales(made: Tale, numbers: Callable[[], float]) -> Iterator[Message]:
    """Yield requests for short tales: what an answer takes from a request is a large part of it, and soon learned."""
    for each in (made, tale(numbers, other_than=made.hero)):
        way = each.story.pick(_SHORT_WAYS)
        yield from _pair(request(each, way, table="short_requests"), each.short)
        questions = [question for question in each.questions if question.of_short]
        if each.story.happens(_ASKS_OF_SHORT):
            found = each.story.pick(questions)
            yield from _pair(found.asked, found.answer)


def _about(made: Tale) -> Iterator[Message]:
    """Yield some questions about a tale in any order, with their answers, and perhaps its short version."""
    rest = list(made.questions)
    for _ in range(int(made.story.pick(range(_MOST_QUESTIONS + 1)))):
        if rest:
            found = rest.pop(made.story.pick(range(len(rest))))
            yield from _pair(found.asked, found.answer)
    if made.story.happens(_SHORTENS):
        yield from _pair(shorten(made), made.short)


def _pair(asked: str, answer: str) -> Iterator[Message]:
    yield Message("user", asked)
    yield Message("assistant", answer)


def _questions(story: Story, trouble: Row, text: str) -> Iterator[Question]:
    for row in phrases()["questions"]:
        if story.fill(row.needs).lower() in text.lower() and not (
            hasattr(row, "place") and _has_other_place(story, text)
        ):
            yield _question(story, row.asks, row.answer, of_short=hasattr(row, "of_short"))
    for suffix in ("", "_too"):
        if hasattr(trouble, f"asks{suffix}"):
            of_short = not (suffix or hasattr(trouble, "short_lacks_it"))
            asks, answer = getattr(trouble, f"asks{suffix}"), getattr(trouble, f"answer{suffix}")
            yield _question(story, asks, answer, of_short=of_short)


def _question(story: Story, asks: Sequence[str], answer: str, *, of_short: bool) -> Question:
    return Question(_said(story, story.fill(story.pick(asks))), as_written(story.fill(answer)), of_short)


def _has_other_place(story: Story, text: str) -> bool:
    """Whether a tale names another place than its own, so that it is not clear where it happens."""
    own = story.fill("{place.the}")
    return any(
        place.the in text for place in [*shared_tables()["places"], *shared_tables()["nears"]] if place.the != own
    )


def _asked(story: Story, table: str) -> str:
    return _said(story, story.fill(story.pick(phrases()[table])))


def _said(story: Story, words: str) -> str:
    """Return the words as a person writes them: with an end mark or without, perhaps in lower case."""
    text = as_written(words)
    mark = "" if story.happens(_WITHOUT_END) else "" if text.endswith("?") else "."
    if not mark:
        text = text.rstrip("?") if story.happens(_WITHOUT_END) else text
    begins_with_name = text.startswith(tuple(name.text for name in cast.names()))
    return (text[0].lower() + text[1:] if story.happens(_LOWER) and not begins_with_name else text) + mark
