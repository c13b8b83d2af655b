"""The state of a tale: a `Story` picks sentence shapes, fills their slots and collects the paragraphs.

A shape is one or more sentences with `[this|that]` choices (they may be nested or empty) and `{slots}`.
Write `a` before every noun: it becomes `an` before a vowel. The first letters of sentences are capitalized, also in
quotes, except after `!"` and `?"`, where the speaker's name may follow; put a new sentence there into a separate shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from alm.corpus.sources.tales.cast import Character

Item = TypeVar("Item")
Shapes = Sequence[str]

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")
_SENTENCE_START = re.compile(r'(?:^"?|(?<=[.!?] )"?|(?<=\." )"?|(?<=, "))[a-z]')


@dataclass(frozen=True)
class Mention:
    """A person or thing without a name: `a` introduces it, `the` mentions it again."""

    a: str
    the: str

    def __str__(self) -> str:
        return self.the


@dataclass(frozen=True)
class Mood:
    """A way of speaking: the verbs and manners of the tag, and gestures that can replace it.

    `own` gestures contain `{who.his}`, so only a named character makes them. `mark` ends speech that has no end mark.
    """

    verbs: tuple[str, ...]
    manners: tuple[str, ...]
    gestures: tuple[str, ...]
    own: tuple[str, ...]
    mark: str = "."


SAY = Mood(
    verbs=("said",),
    manners=("", "", "", " after a while", " at last"),
    gestures=("looked up", "spoke first"),
    own=("took a deep breath", "scratched {who.his} nose"),
)
REPLY = Mood(
    verbs=("said", "answered"),
    manners=("", "", "", " after a while", " at once"),
    gestures=("thought for a moment", "looked up"),
    own=("scratched {who.his} nose", "took a deep breath"),
)
ADVISE = Mood(
    verbs=("said",),
    manners=("", "", " slowly", " in a quiet voice"),
    gestures=("nodded slowly", "thought for a moment", "looked at the sky"),
    own=("scratched {who.his} nose",),
)
KINDLY = Mood(
    verbs=("said",),
    manners=("", " kindly", " gently", " in a warm voice"),
    gestures=("smiled", "came closer"),
    own=("smiled {who.his} best smile",),
)
WHISPER = Mood(
    verbs=("whispered",),
    manners=("", "", " very softly"),
    gestures=("stood very still", "looked all around"),
    own=("closed {who.his} eyes", "held {who.his} breath"),
)
SADLY = Mood(
    verbs=("said",),
    manners=(" sadly", " in a small voice", " with a sigh", " with wet eyes"),
    gestures=("sighed", "sniffed", "looked away"),
    own=("shook {who.his} head", "looked down at {who.his} feet"),
)
GLADLY = Mood(
    verbs=("said",),
    manners=("", " with a smile", " happily", " with shining eyes"),
    gestures=("smiled", "laughed", "grinned"),
    own=("clapped {who.his} {who.hands}", "gave a little jump"),
)
ASK = Mood(
    verbs=("asked",),
    manners=("", "", "", " softly", " after a moment"),
    gestures=("looked up", "stopped", "turned around"),
    own=("tilted {who.his} head", "opened {who.his} eyes wide"),
    mark="?",
)
WONDER = Mood(
    verbs=("asked", "cried", "wondered"),
    manners=("",),
    gestures=("stopped", "looked this way and that"),
    own=("scratched {who.his} head",),
    mark="?",
)
CRY = Mood(
    verbs=("cried", "shouted", "called"),
    manners=("",),
    gestures=("jumped up", "turned around"),
    own=("threw up {who.his} {who.hands}",),
    mark="!",
)
CROSSLY = Mood(
    verbs=("cried", "shouted", "said"),
    manners=("", "", " crossly", " with an angry face"),
    gestures=("turned red", "frowned"),
    own=("stamped {who.his} foot", "folded {who.his} arms"),
    mark="!",
)
GLADLY_CRY = Mood(
    verbs=("cried", "shouted", "laughed"),
    manners=("", " happily", " with joy"),
    gestures=("laughed", "jumped up"),
    own=("clapped {who.his} {who.hands}", "danced on the spot"),
    mark="!",
)


class Story:
    """One tale during generation: its slots and its text so far.

    `random` returns numbers from 0 to 1 and is the only source of randomness: the same numbers give the same tale.
    `leisure` scales the chance of every optional sentence, so a small value makes a short tale.
    """

    def __init__(self, random: Callable[[], float], *, leisure: float = 1.0) -> None:
        self._random = random
        self._leisure = leisure
        self._slots: dict[str, object] = {}
        self._paragraphs: list[str] = []
        self._sentences: list[str] = []

    def pick(self, items: Sequence[Item]) -> Item:
        return items[int(self._random() * len(items))]

    def several(self, items: Sequence[Item], count: int) -> list[Item]:
        """Return `count` different items, in random order."""
        rest = list(items)
        return [rest.pop(int(self._random() * len(rest))) for _ in range(count)]

    def happens(self, chance: float) -> bool:
        return self._random() < chance

    def put(self, **slots: object) -> None:
        self._slots.update(slots)

    def fill(self, shape: str) -> str:
        """Make the choices of a shape and fill its slots."""
        while "[" in shape:
            shape = _CHOICE.sub(self._choose, shape)
        return shape.format_map(self._slots)

    def say(self, shapes: Shapes, *, chance: float = 1.0) -> None:
        """Add one of `shapes` to the paragraph, with probability `chance`."""
        if self._goes_in(chance):
            self._add(self.fill(_by_name(self.pick(shapes))))

    def speak(self, who: str, lines: Shapes, mood: Mood = SAY, *, chance: float = 1.0) -> None:
        """Add one of `lines` as speech of the slot `who`. The mood's mark ends a line without `?` or `!`."""
        if self._goes_in(chance):
            self._add(self._speech(who, self.fill(self.pick(lines)), mood))

    def paragraph(self, *, chance: float = 1.0) -> None:
        if self._sentences and (chance == 1.0 or self.happens(chance)):
            self._paragraphs.append(" ".join(self._sentences))
            self._sentences = []

    def text(self) -> str:
        self.paragraph()
        return "\n\n".join(self._paragraphs)

    def _goes_in(self, chance: float) -> bool:
        return chance == 1.0 or self.happens(chance * self._leisure)

    def _choose(self, match: re.Match[str]) -> str:
        alternatives: list[str] = match[1].split("|")
        return self.pick(alternatives)

    def _add(self, sentence: str) -> None:
        self._sentences.append(_SENTENCE_START.sub(_upper, _ARTICLE.sub(r"\1n ", sentence)))

    def _speech(self, slot: str, line: str, mood: Mood) -> str:
        who = self._slots[slot]
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
        gesture: str = self.pick(mood.gestures + mood.own)
        return gesture.format(who=who)

    def _just_named(self, who: Character) -> bool:
        """Whether the sentence before is about `who`, so that a pronoun is enough."""
        return bool(self._sentences) and self._sentences[-1].startswith((who.name, who.he.capitalize() + " "))


def _by_name(shape: str) -> str:
    """Begin a sentence about the hero with the name: a few minutes of training hardly teach a model pronouns."""
    return "{hero} " + shape.removeprefix("{he} ") if shape.startswith("{he} ") else shape


def _upper(match: re.Match[str]) -> str:
    return match[0].upper()
