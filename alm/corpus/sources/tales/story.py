"""The state of a tale: a `Story` picks sentence shapes, fills their slots and collects the paragraphs.

A shape is one or more sentences with `[this|that]` choices (they may be nested or empty) and `{slots}`.
Write `a` before every noun: it becomes `an` before a vowel. The first letters of sentences are capitalized, also in
quotes, except after `!"` and `?"`, where the speaker's name may follow; put a new sentence there into a separate shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from alm.corpus.sources.tales.data import read

Item = TypeVar("Item")
Shapes = Sequence[str]

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")
_SENTENCE_START = re.compile(r'(?:^"?|(?<=[.!?] )"?|(?<=\." )"?|(?<=, "))[a-z]')


@dataclass(frozen=True)
class Character:
    """A named character. Its `str` is the name, so a slot `{hero}` becomes the name."""

    name: str
    he: str
    him: str
    his: str
    himself: str
    kind: str
    a: str
    ran: str
    hands: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Mood:
    """A way of speaking: the verbs and manners of the tag, and gestures that can replace it.

    `own` gestures contain `{who.his}`, so only a named character makes them. `mark` ends speech that has no end mark.
    """

    verbs: list[str]
    manners: list[str]
    gestures: list[str]
    own: list[str]
    mark: str = "."


@cache
def moods() -> dict[str, Mood]:
    """Return the moods by name."""
    return {name: Mood(**columns) for name, columns in read("moods").items()}


class Story:
    """One tale during generation: its slots and its text so far.

    `random` returns numbers from 0 to 1 and is the only source of randomness: the same numbers give the same tale.
    `leisure` scales the chance of every optional sentence, so a small value makes a short tale. `scenes` names those
    that take the place of others.
    """

    def __init__(
        self, random: Callable[[], float], *, leisure: float = 1.0, scenes: Mapping[str, str] | None = None
    ) -> None:
        self.scenes = scenes or {}
        self._random = random
        self._leisure = leisure
        self._slots: dict[str, Any] = {}
        self._not_chosen: dict[str, list[Any]] = {}
        self._paragraphs: list[str] = []
        self._sentences: list[str] = []

    def pick(self, items: Sequence[Item]) -> Item:
        return items[int(self._random() * len(items))]

    def several(self, items: Sequence[Item], count: int) -> list[Item]:
        """Return `count` different items, in random order."""
        return self._take(list(items), count)

    def happens(self, chance: float) -> bool:
        return self._random() < chance

    def put(self, **slots: object) -> None:
        self._slots.update(slots)

    def choose(self, slot: str, source: str | list[Any]) -> None:
        """Fill a slot from an array, or from the slot or column that `source` names.

        An array gives one item, and a named array never the same item twice. Anything else is taken as it is. The slots
        of a string are filled at once.
        """
        found = self.look_up(source) if isinstance(source, str) else source
        if isinstance(source, str) and isinstance(found, list):
            [found] = self._take(self._not_chosen.setdefault(source, list(found)), 1)
        else:
            found = self.one_of(found)
        self._slots[slot] = self.fill(found) if isinstance(found, str) else found

    def look_up(self, name: str) -> Any:
        """Return the value of a slot, or of a column of its row: `place` or `place.spots`. A missing column is None."""
        slot, *columns = self.fill(name).split(".")
        value = self._slots[slot]
        for column in columns:
            value = getattr(value, column, None)
        return value

    def shapes(self, given: str | Shapes) -> Shapes:
        """Return shapes that are given, or that are in the slot or column with that name."""
        found = self.look_up(given) if isinstance(given, str) else given
        return [found] if isinstance(found, str) else found

    def one_of(self, value: Any) -> Any:
        """Return an item of a list, or a value that is no list."""
        return self.pick(value) if isinstance(value, list) else value

    def fill(self, shape: str) -> str:
        """Make the choices of a shape and fill its slots."""
        while "[" in shape:
            shape = _CHOICE.sub(self._choose, shape)
        return shape.format_map(self._slots)

    def say(self, shapes: Shapes, *, chance: float = 1.0) -> None:
        """Add one of `shapes` to the paragraph, with probability `chance`."""
        if self._goes_in(chance):
            self._add(self.fill(_by_name(self.pick(shapes))))

    def speak(self, who: str, lines: Shapes, mood: Mood, *, chance: float = 1.0) -> None:
        """Add one of `lines` as speech of `who`: a slot, or the words for someone without a name.

        The mood's mark ends a line without `?` or `!`.
        """
        if self._goes_in(chance):
            self._add(self._speech(who, self.fill(self.pick(lines)), mood))

    def paragraph(self, *, chance: float = 1.0) -> None:
        if self._sentences and (chance == 1.0 or self.happens(chance)):
            self._paragraphs.append(" ".join(self._sentences))
            self._sentences = []

    def text(self) -> str:
        self.paragraph()
        return "\n\n".join(self._paragraphs)

    def _take(self, rest: list[Item], count: int) -> list[Item]:
        return [rest.pop(int(self._random() * len(rest))) for _ in range(count)]

    def _goes_in(self, chance: float) -> bool:
        return chance == 1.0 or self.happens(chance * self._leisure)

    def _choose(self, match: re.Match[str]) -> str:
        alternatives: list[str] = match[1].split("|")
        return self.pick(alternatives)

    def _add(self, sentence: str) -> None:
        self._sentences.append(as_written(sentence))

    def _speech(self, speaker: str, line: str, mood: Mood) -> str:
        who = self._slots[speaker] if speaker in self._slots else self.fill(speaker)
        words = line if line[-1] in "?!" else line + mood.mark
        form = self._random()
        just_named = isinstance(who, Character) and self._just_named(who)
        if form < 0.25 and not just_named:
            return f'{who} {self._gesture(who, mood)}. "{words}"'
        verb = "asked" if words[-1] == "?" and mood.mark != "?" else self.pick(mood.verbs)
        manner = self.pick(mood.manners)
        if form < 0.4 and not manner and verb == "said":
            return f'{who} {verb}, "{words}"'
        if words[-1] == ".":
            words = line + ","
        if isinstance(who, Character) and just_named:
            return f'"{words}" {who.he} {verb}{manner}.'
        return f'"{words}" {verb} {who}{manner}.'

    def _gesture(self, who: object, mood: Mood) -> str:
        if not isinstance(who, Character):
            return self.pick(mood.gestures)
        return self.pick([*mood.gestures, *mood.own]).format(who=who)

    def _just_named(self, who: Character) -> bool:
        """Whether the sentence before is about `who`, so that a pronoun is enough."""
        return bool(self._sentences) and self._sentences[-1].startswith((who.name, who.he.capitalize() + " "))


def _by_name(shape: str) -> str:
    """Begin a sentence about the hero with the name: a few minutes of training hardly teach a model pronouns."""
    return "{hero} " + shape.removeprefix("{he} ") if shape.startswith("{he} ") else shape


def as_written(sentence: str) -> str:
    """Return a filled shape with `an` before vowels, and with capital letters where sentences begin."""
    return _SENTENCE_START.sub(_upper, _ARTICLE.sub(r"\1n ", sentence))


def _upper(match: re.Match[str]) -> str:
    return match[0].upper()
