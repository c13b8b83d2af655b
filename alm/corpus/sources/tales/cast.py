"""The named characters of a tale: a hero and a friend.

Two rules keep the characters distinct, even for a model that trains for a few minutes. First, in narration `he` and
`she` refer only to a named character, and two named characters of one tale never share pronouns: elders and helpers
have a noun, lost little ones are `it`. Second, a name has the same kind and the same friend in every tale.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from alm.corpus.sources.tales.data import Row, shared_tables
from alm.corpus.sources.tales.story import Character, Story


@dataclass(frozen=True)
class Pronouns:
    """The four forms of a pronoun; `his` is the possessive before a noun."""

    he: str
    him: str
    his: str
    himself: str


HE = Pronouns("he", "him", "his", "himself")
SHE = Pronouns("she", "her", "her", "herself")


@dataclass(frozen=True)
class Name:
    """A name as it is written in a tale, with the pronouns and kind that always belong to it."""

    text: str
    pronouns: Pronouns
    kind: Row


@cache
def pairs() -> tuple[tuple[Name, Name], ...]:
    """Return the pairs of friends. Either of two can be the hero."""
    kinds = {kind.noun: kind for kind in shared_tables()["kinds"]}
    return tuple(
        (Name(pair.she, SHE, kinds[pair.she_is]), Name(pair.he, HE, kinds[pair.he_is]))
        for pair in shared_tables()["pairs"]
    )


def names() -> tuple[Name, ...]:
    """Return the names of all pairs."""
    return tuple(name for pair in pairs() for name in pair)


def choose_pair(story: Story) -> None:
    """Choose the hero, the friend and where the hero lives."""
    one, other = story.pick(pairs())
    hero, friend = (one, other) if story.happens(0.5) else (other, one)
    own = hero.pronouns
    story.put(he=own.he, him=own.him, his=own.his, himself=own.himself)
    story.put(home=story.pick(hero.kind.homes), near=story.pick(shared_tables()["nears"]))
    story.put(hero=_character(story, hero), friend=_character(story, friend))


def _character(story: Story, name: Name) -> Character:
    own, kind = name.pronouns, name.kind
    looks = f"a {story.pick(kind.looks)} {kind.noun}"
    return Character(
        name.text, own.he, own.him, own.his, own.himself, kind=kind.noun, a=looks, ran=kind.ran, hands=kind.hands
    )
