"""Characters of the tales: names with their pronouns, kinds of heroes, and people and animals without a name.

Two rules keep the characters distinct, even for a model that trains for a few minutes. First, in narration `he` and
`she` refer only to a named character, and two named characters of one tale never share pronouns: elders and helpers
have a noun, lost little ones are `it`. Second, a name has the same kind and the same friend in every tale.
"""

from __future__ import annotations

from dataclasses import dataclass


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
class Kind:
    """A kind of named character: `ran` is its way of moving, `hands` its limbs, `looks` adjectives for it."""

    noun: str
    ran: str
    hands: str
    looks: tuple[str, ...]
    homes: tuple[str, ...]


@dataclass(frozen=True)
class Name:
    """A name as it is written in a tale, with the pronouns and kind that always belong to it."""

    text: str
    pronouns: Pronouns
    kind: Kind


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
class Helper:
    """A person or animal without a name that the hero meets: its appearance, and what it is doing."""

    kind: str
    a: str
    doing: str

    def __str__(self) -> str:
        return f"the {self.kind}"


def _helper(kind: str, look: str, doing: str) -> Helper:
    return Helper(kind=kind, a=f"a {look} {kind}", doing=doing)


_HOUSES = (
    "a small house", "a little white house", "a house with a green door", "a house with a red roof",
    "a cottage with round windows", "a stone cottage", "a tall, thin house", "a wooden cabin", "a yellow cottage",
)  # fmt: skip
_HUMAN_LOOKS = ("little", "small", "young", "tall", "thin", "barefoot", "freckled", "curly-haired")

GIRL = Kind("girl", "ran", "hands", _HUMAN_LOOKS, _HOUSES)
BOY = Kind("boy", "ran", "hands", _HUMAN_LOOKS, _HOUSES)

# fmt: off
RABBIT = Kind("rabbit", "hopped", "paws", ("small brown", "white", "young", "little gray", "fluffy"),
              ("a cozy burrow", "a burrow under a hedge", "a warm burrow with a round door"))
FOX = Kind("fox", "trotted", "paws", ("young red", "small", "thin", "bushy-tailed"),
           ("a cozy den", "a den under a big rock", "a snug den with a leaf for a door"))
BEAR = Kind("bear", "trotted", "paws", ("big brown", "young", "little black", "round"),
            ("a warm cave", "a cave behind a big stone", "a dry cave full of soft moss"))
MOUSE = Kind("mouse", "ran", "paws", ("tiny", "gray", "little brown", "quick"),
             ("a hole in a garden wall", "a teapot in an old shed", "a snug hole under the stairs of a mill"))
BADGER = Kind("badger", "trotted", "paws", ("young", "sturdy little", "black and white", "gray"),
              ("a den full of leaves", "a deep, dry den", "a den under an old stump"))
CAT = Kind("cat", "ran", "paws", ("striped", "young gray", "black", "thin orange"),
           ("a basket by a stove", "a barn full of sweet hay", "a box by a sunny window"))
RACCOON = Kind("raccoon", "ran", "paws", ("young", "little", "gray", "ring-tailed"),
               ("a hollow log", "an old tree house", "a hole in an old oak"))
PIG = Kind("pig", "trotted", "feet", ("small pink", "round", "spotted", "young"),
           ("a shed full of straw", "a little brick house", "a shed with a round door"))
# fmt: on


def _pair(her: str, she_is: Kind, him: str, he_is: Kind) -> tuple[Name, Name]:
    return Name(her, SHE, she_is), Name(him, HE, he_is)


PAIRS: tuple[tuple[Name, Name], ...] = (
    _pair("Mia", GIRL, "Tom", BOY),
    _pair("Hana", GIRL, "Ben", BOY),
    _pair("Ruby", GIRL, "Barnaby", BEAR),
    _pair("Amina", GIRL, "Otto", BADGER),
    _pair("Pippa", RABBIT, "Jack", BOY),
    _pair("Dotty", MOUSE, "Omar", BOY),
    _pair("Trixie", CAT, "Monty", PIG),
    _pair("Juno", FOX, "Chester", RACCOON),
)
"""The pairs of friends; either of two can be the hero."""
NAMES: tuple[Name, ...] = tuple(name for pair in PAIRS for name in pair)

ELDERS: tuple[str, ...] = ("mother", "father", "grandmother", "grandfather", "aunt", "uncle")

HELPERS: tuple[Helper, ...] = (
    _helper("owl", "gray old", "sitting on a low branch"),
    _helper("goose", "proud white", "walking along the path"),
    _helper("crow", "black", "sitting on a fence"),
    _helper("heron", "tall gray", "standing on one leg"),
    _helper("donkey", "sleepy", "eating grass beside the path"),
    _helper("toad", "fat brown", "sitting on a warm stone"),
    _helper("swan", "lovely white", "sitting on the bank"),
    _helper("robin", "cheerful", "singing on a gate"),
    _helper("turtle", "very old", "walking slowly along the path"),
    _helper("goat", "bearded", "eating leaves from a bush"),
    _helper("snail", "slow and patient", "climbing up a leaf"),
    _helper("magpie", "noisy", "counting shiny stones"),
    _helper("woodpecker", "busy", "tapping on a tree"),
    _helper("farmer", "friendly", "building a gate"),
    _helper("fisherman", "old", "carrying a net"),
    _helper("shepherd", "quiet", "holding a long stick"),
    _helper("miller", "dusty", "pulling a cart full of flour"),
    _helper("baker", "plump", "carrying a basket of warm bread"),
    _helper("postman", "tired", "carrying a bag of letters"),
    _helper("sailor", "jolly", "pulling a long rope"),
    _helper("gardener", "kind", "digging in the ground"),
    _helper("peddler", "merry", "pulling a cart full of pots"),
    _helper("painter", "dreamy", "painting the clouds"),
)
