"""Vocabulary of the tales: belongings, food, traits, hobbies, finds, and the times at which tales begin."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """A belonging: `habit` completes a sentence after `{he}`; `nest` is true if a mouse could sleep in it."""

    noun: str
    looks: tuple[str, ...]
    habit: str
    nest: bool = False


@dataclass(frozen=True)
class Thing:
    """The belonging of one tale, in the forms that sentences need."""

    noun: str
    a: str
    the: str
    look: str

    def __str__(self) -> str:
        return f"{self.look} {self.noun}"


@dataclass(frozen=True)
class Food:
    """Food that is `it`: with its article, in short, and a part of it."""

    a: str
    the: str
    part: str


@dataclass(frozen=True)
class Trait:
    """A trait of a character, and a habit that shows it; `habit` completes a sentence after `{he}`."""

    is_: str
    habit: str


_COLOURS = ("red", "blue", "green", "yellow", "orange", "white", "pink")
_SHINY = ("shiny", "silver", "golden", "old", "tiny", "bright")
_WOODEN = ("wooden", "little", "old", "painted", "round")
_SOFT = ("soft", "warm", "blue", "striped", "red", "green", "old")
_SMALL = ("smooth", "tiny", "round", "white", "green")

KEPT: tuple[Kept, ...] = (
    Kept("kite", _COLOURS, "flew it on every windy day"),
    Kept("ball", (*_COLOURS, "striped"), "rolled it all the way down the lane and back"),
    Kept("drum", ("little", "red", "loud", "round"), "played it until everyone covered their ears"),
    Kept("hat", (*_SOFT, "pointed"), "wore it in any weather", nest=True),
    Kept("scarf", (*_SOFT, "long"), "wore it even in summer", nest=True),
    Kept("button", (*_SHINY, *_SMALL), "kept it in a little box by the bed"),
    Kept("spoon", ("wooden", "silver", "tiny"), "ate {his} soup with it every evening"),
    Kept("lantern", ("little", "old", "green", "round"), "hung it by the door every night"),
    Kept("key", _SHINY, "wore it on a string, though it opened nothing at all"),
    Kept("coin", _SHINY, "rubbed it until it shone like the moon"),
    Kept("bell", _SHINY, "rang it every morning at breakfast"),
    Kept("whistle", ("wooden", "silver", "loud", "red"), "blew it whenever {he} was happy"),
    Kept("book", ("big", "old", "little", "blue", "green"), "read one page of it every night"),
    Kept("cup", (*_COLOURS, "tiny"), "drank warm milk from it at bedtime", nest=True),
    Kept("doll", ("little", "wooden", "old", "soft"), "told it all {his} secrets"),
    Kept("toy boat", (*_COLOURS, "wooden"), "sailed it in every puddle"),
    Kept("shell", ("white", "pink", "smooth", "shiny"), "held it to {his} ear to hear the sea"),
    Kept("basket", ("round", "little", "yellow", "old"), "carried it everywhere, even when it was empty", nest=True),
    Kept("umbrella", (*_COLOURS, "striped", "big"), "opened it even when the sun was out"),
    Kept("marble", ("blue", "green", "shiny", "round", "striped"), "rolled it from one end of the room to the other"),
    Kept("feather", ("white", "long", "blue", "golden", "striped"), "wore it behind one ear"),
    Kept("ribbon", (*_COLOURS, "long"), "tied it in a new way each morning"),
    Kept("blanket", _SOFT, "could not fall asleep without it", nest=True),
    Kept("flute", ("wooden", "silver", "little"), "played the same song on it each morning"),
    Kept("top", (*_COLOURS, "wooden"), "could make it hum like a bee"),
    Kept("toy bear", ("brown", "old", "soft", "little"), "took it along to every meal"),
    Kept("music box", ("little", "silver", "round", "painted"), "listened to it before bed"),
    Kept("toy train", (*_COLOURS, "wooden"), "pulled it up and down the path"),
    Kept("puppet", ("wooden", "funny", "little", "striped"), "made it dance for everyone who came by"),
    Kept("paper crown", ("yellow", "golden", "red"), "wore it at breakfast like a king"),
    Kept("bucket", (*_COLOURS, "tin"), "filled it with something new every day", nest=True),
)  # fmt: skip

FOODS: tuple[Food, ...] = (
    Food("a loaf of bread", "the bread", "a piece of bread"),
    Food("a pot of soup", "the soup", "a bowl of soup"),
    Food("a plum pie", "the pie", "a piece of pie"),
    Food("a honey cake", "the cake", "a piece of cake"),
    Food("a round cheese", "the cheese", "a slice of cheese"),
    Food("a big pancake", "the pancake", "a bit of pancake"),
    Food("an apple tart", "the tart", "a slice of tart"),
    Food("a berry pie", "the pie", "a slice of pie"),
    Food("a nut cake", "the cake", "a piece of cake"),
    Food("a carrot cake", "the cake", "a slice of cake"),
    Food("a cheese sandwich", "the sandwich", "half of the sandwich"),
    Food("a bowl of rice", "the rice", "a spoonful of rice"),
    Food("a potato pie", "the pie", "a corner of the pie"),
    Food("a cherry pudding", "the pudding", "a spoonful of pudding"),
)

CAKES: tuple[Food, ...] = tuple(food for food in FOODS if food.the in ("the cake", "the pie", "the tart"))

FRUITS: tuple[str, ...] = (
    "berries", "plums", "nuts", "cherries", "mushrooms", "apples", "pears", "flowers", "beans", "acorns",
)  # fmt: skip

JUNK: tuple[str, ...] = (
    "an old boot", "a sleepy beetle", "three dry leaves", "a rusty key", "a fat worm", "an empty bottle", "a snail",
    "a bent spoon", "a sleepy toad", "a broken cup", "one lost sock", "a gray feather", "a family of ants",
    "a wet hat", "a cold potato", "a ball of string", "a broken plate",
)  # fmt: skip

HOBBIES: tuple[str, ...] = (
    "painting pictures", "watching the clouds", "digging holes", "climbing trees", "singing old songs",
    "telling jokes", "baking little cakes", "counting the stars", "chasing butterflies", "reading stories",
    "jumping in puddles", "building towers", "growing flowers", "making paper boats", "looking for smooth stones",
    "drawing maps", "playing tag", "dancing in the rain", "asking questions", "making up silly songs",
    "watching the ants at work", "rolling down hills", "feeding the birds", "making soup", "whistling",
)  # fmt: skip

TRAITS: tuple[Trait, ...] = (
    Trait("kind", "liked to [help|smile at|say hello to] everyone {he} met"),
    Trait("kind", "could not pass a [snail|tree|goose] without wishing it a good day"),
    Trait("curious", "asked questions from [breakfast|morning] to bedtime"),
    Trait("curious", "wanted to know what was [behind every door|under every stone|at the end of every road]"),
    Trait("cheerful", "[sang|laughed] at work and [sang|laughed] at play"),
    Trait("cheerful", "could find something good in [any weather|every day]"),
    Trait("quiet", "saw [many|small|all the] things that others missed"),
    Trait("quiet", "liked to [listen|watch] more than to talk"),
    Trait("busy", "was never [still|alone|sad] for long"),
    Trait("busy", "always had a plan for [the day|everything|tomorrow]"),
    Trait("clever", "liked to find new ways to [do old things|carry water|make soup|climb a hill]"),
    Trait("clever", "knew the name of every [bird|flower|star|cow]"),
    Trait("gentle", "never stepped on [a flower|an ant|a worm]"),
    Trait("gentle", "talked softly to the [bees|hens|trees]"),
    Trait("playful", "could turn [any work|anything at all|a walk to the well] into a game"),
    Trait("playful", "laughed at the [smallest|silliest] things"),
    Trait("careful", "always looked [twice|three times] before every [jump|step]"),
    Trait("dreamy", "often forgot [what day it was|to eat breakfast|where {he} was going]"),
    Trait("dreamy", "saw [castles|ships|dragons] in every cloud"),
    Trait("stubborn", "never gave up[| on anything]"),
    Trait("polite", "said thank you even to the [rain|wind|moon|gate]"),
    Trait("funny", "could make a [stone|cow|rainy day] laugh"),
)

SEASON_WEATHER: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("spring", ("sunny", "breezy", "fresh", "bright", "mild")),
    ("summer", ("hot", "bright", "warm", "golden", "sunny", "lazy")),
    ("autumn", ("windy", "crisp", "gray", "misty", "golden", "cool")),
)

PARTS_OF_DAY: tuple[str, ...] = ("morning", "afternoon", "day", "morning", "day")

DAY_OPENINGS: tuple[str, ...] = (
    "one {weather} {part_of_day}", "one {weather} {part_of_day}", "one {season} {part_of_day}", "one day",
    "one {part_of_day}", "on a {weather} day in {season}", "early one morning", "one {weather} {season} {part_of_day}",
    "on the first {weather} day of {season}", "one day in {season}", "on the last day of {season}",
    "after breakfast one day", "after lunch one day", "one fine {part_of_day}",
)  # fmt: skip
