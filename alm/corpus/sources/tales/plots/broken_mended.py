"""Plot: a treasured thing breaks, a quick repair fails, and a patient one makes it better."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import ADVISE, SADLY, Shapes, Story


@dataclass(frozen=True)
class _Broken:
    """A thing that can break: repairs that fail, the one who can repair it, and the ways in which it breaks.

    Each way is an accident, its repair, and the mark that stays.
    """

    noun: str
    bad_mends: Shapes
    maker: str
    ways: tuple[tuple[str, str, str], ...]


_BROKEN = (
    _Broken(
        "kite",
        ("tied it together with grass, but the grass broke", "closed the hole with mud, but the mud fell off"),
        "the tailor",
        (
            ("the wind tore a long hole in it", "cut a piece from an old red coat and sewed it on", "red corner"),
            ("it flew into a thorn bush and came out with three holes", "sewed a star over every hole", "three stars"),
        ),
    ),
    _Broken(
        "wagon",
        ("tied it on with string, but it fell off at once", "used a lump of mud, but it dried and fell off"),
        "the wheel maker",
        (
            ("one wheel came off and rolled down the hill", "put a ring of iron around the wheel", "iron ring"),
            ("it hit a stone, and the handle broke", "cut a new handle from a young tree", "white handle"),
        ),
    ),
    _Broken(
        "teapot",
        ("put it together with honey, but the ants ate it", "tied a string around it, but the tea ran out"),
        "the potter",
        (
            (
                "it slipped from {his} {hero.hands} and broke in two",
                "painted a thin golden line over the crack",
                "golden line",
            ),
            ("the handle came off", "made a new handle that looked like a bird", "little bird"),
        ),
    ),
    _Broken(
        "chair",
        ("put a box under it, but it fell over", "used a lump of mud, but it was as soft as soup"),
        "the carpenter",
        (
            ("one leg broke with a loud crack", "cut a new leg from an apple branch", "new leg"),
            ("the seat fell through", "made a new seat out of green reeds", "green seat"),
        ),
    ),
    _Broken(
        "doll",
        ("used a lump of mud, but it dried and fell off", "tied it up with grass, but the grass broke"),
        "the tailor",
        (
            ("one arm came off", "took a needle and a green thread and sewed and sewed", "green thread"),
            ("a playful puppy pulled off its hair", "made new hair out of yellow wool", "yellow hair"),
        ),
    ),
    _Broken(
        "clock",
        ("shook it hard, but it only made a strange noise", "gave it a drop of soup, but that did not help"),
        "the clock maker",
        (
            ("it fell from the wall and would not go", "put every little wheel back in its place", "happy sound"),
            ("a wheel jumped out and rolled under the stove", "caught the wheel and pushed it back in", "new song"),
        ),
    ),
    _Broken(
        "lantern",
        ("made a window out of paper, but the paper caught fire", "closed it with leaves, but then it was dark"),
        "the blacksmith",
        (
            ("the glass broke into five pieces", "put in a new glass, as blue as the sky", "blue light"),
            ("a cow stepped on it", "made the fire hot and hammered the iron straight", "crooked little roof"),
        ),
    ),
    _Broken(
        "fiddle",
        (
            "used a piece of grass for a string, but it sounded like an unhappy cow",
            "filled it with wool, but then it only whispered",
        ),
        "the fiddle maker",
        (
            (
                "two strings broke at the same time",
                "rubbed the wood until it shone and put on new strings",
                "warm sound",
            ),
            ("there was suddenly a crack from end to end", "closed the crack with a thin piece of wood", "thin line"),
        ),
    ),
)
_OWNED = (
    "In {his} home there was an old {broken.noun}, and {elder} loved it very much.",
    "{elder} had an old {broken.noun}, older than the two of them together.",
    "There was one thing in the house that {hero} was not allowed to [touch|play with]. It was an old {broken.noun}.",
    "{his} [finest|best] thing was an old {broken.noun} from {elder}.",
)
_BREAKS = (
    "{one_day}, {hero} was playing with the {broken.noun}, and {breaks}.",
    "{one_day}, {hero} wanted to show the {broken.noun} to {friend}. But {breaks}.",
    "{one_day}, when {hero} was in a great hurry, something bad happened to the {broken.noun}. {breaks}.",
    "{one_day}, {hero} took the {broken.noun} outside, only for a moment, and {breaks}.",
)
_BROKEN_LINES = (
    "Oh no, what have I done!",
    "I will mend it. I must",
    "It was so old, and now it is broken",
    "Nobody can mend this",
)
_MAKER_TELLS = (
    "{hero} put all the pieces in a bag and took them to {broken.maker}.",
    "Then {he} heard that {broken.maker} could mend anything but a broken egg. {he} set out at once, {way_1}.",
    "{elder} was not angry. Together they carried the {broken.noun} to {broken.maker}.",
    "So {hero} went {way_1} and knocked at the door of {broken.maker}.",
)
_MAKER_LINES = (
    "I can show you how, but you have to do it yourself",
    "Broken is not the end. Hold this",
    "I have seen worse. Sit down and watch",
    "What breaks in a moment takes an hour to mend. [Do you have an hour|Can you sit still for that long|Are you in a "
    "hurry]?",
    "Give me that end, and do not let go",
)
_MENDS = (
    "{broken.maker} {mend}. {hero} held the light and did not move.",
    "First they [looked|measured|talked about it], and then they [thought|looked again]. Then {broken.maker} {mend}.",
    "It took all afternoon. {broken.maker} {mend}, and {hero} handed over the tools, one by one.",
    "With {hero} holding tight, {broken.maker} {mend}.",
)
_PAYS = (
    "To pay for it, {hero} washed the whole floor.",
    "For pay, {broken.maker} asked only for a song.",
    "{hero} came every day for a week to help, and learned how to hold a hammer.",
    "{broken.maker} did not want any money, only {food.part}.",
)
_AS_GOOD = (
    "The {broken.noun} was not new again. But with its {mark}, there was no other like it in the world.",
    "{elder} looked at it for a long time and said that it was better than before.",
    "And the best thing about the {broken.noun}, from then on, was its {mark}.",
    "Everyone who saw the {broken.noun} asked about its {mark}, and {hero} told the story with joy.",
)
_MENDED_ENDS = (
    "Now when something breaks, {hero} does not cry. {he} goes and gets a hammer.",
    "And later, when {elder} broke a cup, {hero} knew just what to say.",
    "{hero} kept the old broken piece in a box, so as not to forget.",
    "Soon {he} could mend a [chair|boot|basket] all alone, and the neighbors came to ask for help.",
)


def broken_mended(story: Story) -> None:
    broken = story.pick(_BROKEN)
    breaks, mend, mark = story.pick(broken.ways)
    story.put(broken=broken, breaks=story.fill(breaks), mend=mend, mark=mark)
    story.put(bad_mend=story.pick(broken.bad_mends), maker=broken.maker)
    scenes.open_tale(story)
    story.say(_OWNED)
    story.paragraph(chance=0.8)
    story.say(_BREAKS)
    story.speak("hero", _BROKEN_LINES, SADLY)
    scenes.feel_sorry(story, chance=0.6)
    story.say(("{hero} {bad_mend}.", "First {he} {bad_mend}.", "In a hurry, {hero} {bad_mend}."), chance=0.8)
    story.paragraph(chance=0.7)
    story.say(_MAKER_TELLS)
    story.speak("maker", _MAKER_LINES, ADVISE)
    story.say(_MENDS)
    story.say(_PAYS, chance=0.6)
    story.paragraph(chance=0.5)
    story.say(_AS_GOOD)
    story.say(_MENDED_ENDS, chance=0.7)
    scenes.close_tale(story, chance=0.25)
