"""Who can be in a tale: names with their pronouns, kinds of heroes, and the people and animals met without a name.

One rule keeps pronouns clear: in narration `he` and `she` only ever mean a named character, and two named characters
of one tale never share their pronouns. Elders and helpers go by a noun, lost little ones are `it`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pronouns:
    """The four forms a character needs; `his` is the possessive before a noun."""

    he: str
    him: str
    his: str
    himself: str


HE = Pronouns("he", "him", "his", "himself")
SHE = Pronouns("she", "her", "her", "herself")


@dataclass(frozen=True)
class Name:
    """A name as it is written in a tale, and the pronouns that go with it."""

    text: str
    pronouns: Pronouns


@dataclass(frozen=True)
class Kind:
    """What a named character can be: `ran` is how it moves, `hands` what it holds with, `looks` what it looks like."""

    noun: str
    ran: str
    hands: str
    looks: tuple[str, ...]
    homes: tuple[str, ...]


@dataclass(frozen=True)
class Character:
    """A named character; its text is its name, so a slot `{hero}` reads as the name."""

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
    """Somebody without a name met on the way: how they are first seen, and what they are doing then."""

    kind: str
    a: str
    doing: str

    def __str__(self) -> str:
        return f"the {self.kind}"


def _names(words: str, pronouns: Pronouns) -> tuple[Name, ...]:
    return tuple(Name(text, pronouns) for text in words.split())


def _helper(kind: str, look: str, doing: str) -> Helper:
    return Helper(kind=kind, a=f"a {look} {kind}", doing=doing)


GIRL_NAMES = _names("Mia Hana Anna Emma Nora Ruby Amina Priya", SHE)
BOY_NAMES = _names("Tom Ben Sam Max Jack Noah Omar Kofi", HE)
SHE_ANIMAL_NAMES = _names("Pippa Tula Dotty Lulu Minnie Trixie Juno Coco", SHE)
HE_ANIMAL_NAMES = _names("Rufus Barnaby Otto Bruno Gus Monty Chester Humphrey", HE)
NAMES: tuple[Name, ...] = GIRL_NAMES + BOY_NAMES + SHE_ANIMAL_NAMES + HE_ANIMAL_NAMES

_HOUSES = (
    "a small house", "a little white house", "a house with a green door", "a house with a red roof",
    "a cottage with round windows", "a stone cottage", "a tall, thin house", "a wooden cabin", "a yellow cottage",
)  # fmt: skip
_HUMAN_LOOKS = ("little", "small", "young", "tall", "thin", "barefoot", "freckled", "curly-haired")

GIRL = Kind("girl", "ran", "hands", _HUMAN_LOOKS, _HOUSES)
BOY = Kind("boy", "ran", "hands", _HUMAN_LOOKS, _HOUSES)

ANIMALS: tuple[Kind, ...] = (
    Kind("rabbit", "hopped", "paws", ("small brown", "white", "young", "little gray", "fluffy"),
         ("a cozy burrow", "a burrow under a hedge", "a warm burrow with a round door")),
    Kind("fox", "trotted", "paws", ("young red", "small", "thin", "bushy-tailed"),
         ("a cozy den", "a den under a big rock", "a snug den with a leaf for a door")),
    Kind("bear", "trotted", "paws", ("big brown", "young", "little black", "round"),
         ("a warm cave", "a cave behind a big stone", "a dry cave full of soft moss")),
    Kind("mouse", "ran", "paws", ("tiny", "gray", "little brown", "quick"),
         ("a hole in a garden wall", "a teapot in an old shed", "a snug hole under the stairs of a mill")),
    Kind("squirrel", "ran", "paws", ("red", "young", "quick little", "gray"),
         ("a hollow tree", "a hole high up in an old oak", "a round nest of sticks")),
    Kind("hedgehog", "crept", "paws", ("small", "prickly", "round little", "young"),
         ("a snug hole under a log", "a nest of dry leaves", "a hole under a thorn bush")),
    Kind("frog", "hopped", "hands", ("green", "little", "young", "spotted"),
         ("a mossy hole beside a pond", "a house under a lily leaf", "a cool hole under a stone")),
    Kind("badger", "trotted", "paws", ("young", "sturdy little", "black and white", "gray"),
         ("a den full of leaves", "a deep, dry den", "a den under an old stump")),
    Kind("otter", "ran", "paws", ("sleek brown", "wet-nosed", "young", "little"),
         ("a den on a river bank", "a hole behind the roots of a willow", "a house made of branches")),
    Kind("beaver", "trotted", "paws", ("big-toothed", "young brown", "sturdy", "little"),
         ("a house of sticks", "a round house in the middle of a pond", "a snug house of mud and branches")),
    Kind("mole", "crept", "paws", ("small black", "tiny", "velvety", "young"),
         ("a house under a green hill", "a snug home under an old tree", "a round house under a field")),
    Kind("cat", "ran", "paws", ("striped", "young gray", "black", "thin orange"),
         ("a basket by a stove", "a barn full of sweet hay", "a box by a sunny window")),
    Kind("dog", "trotted", "paws", ("shaggy", "spotted", "young brown", "small white"),
         ("a kennel with a blue roof", "a warm farm kitchen", "a kennel under an old pear tree")),
    Kind("raccoon", "ran", "paws", ("young", "little", "gray", "ring-tailed"),
         ("a hollow log", "an old tree house", "a hole in an old oak")),
    Kind("pig", "trotted", "feet", ("small pink", "round", "spotted", "young"),
         ("a shed full of straw", "a little brick house", "a shed with a round door")),
)  # fmt: skip

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
