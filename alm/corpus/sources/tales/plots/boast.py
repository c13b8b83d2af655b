"""Plot: a big claim grows until it is tested, and the truth turns out to be enough."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import SAY, WHISPER, Story


@dataclass(frozen=True)
class _Boast:
    """A big claim: its growth, its test, and the small truth behind it."""

    claim: str
    grows: str
    test: str
    truth: str
    really: str


_BOASTS = (
    _Boast(
        "I once caught a fish as big as a boat",
        "By noon the fish was as big as a house, and it could sing",
        "Everyone came down to the lake with pots and spoons and waited for {hero} to catch another",
        "It was a very small fish, and it got away",
        "But {he} knew where the frogs sang, and {he} showed them that",
    ),
    _Boast(
        "I can jump over the river",
        "By noon people said that {hero} could jump over the church",
        "The whole village stood on the bank to watch",
        "I can only jump over puddles, and not the big ones",
        "But nobody could walk on their hands the way {hero} could, and soon they all tried it",
    ),
    _Boast(
        "I have a dragon's egg at home",
        "By noon there were two dragons, and one of them breathed fire",
        "Everyone stood in front of {hero}'s door and wanted to see the egg",
        "It is only a big round stone. I painted it green",
        "But it was so well painted that they all wanted one, and {hero} painted stones until supper",
    ),
    _Boast(
        "I am not afraid of anything",
        "By noon people said that {hero} had chased away three wolves",
        "They asked {hero} to go into the dark cave and look for the lost goat",
        "I am afraid of the dark, and of wolves, and of that cave",
        "Then {friend} said the same, and so did the others, and they all went in together, side by side",
    ),
    _Boast(
        "I can make it rain whenever I like",
        "By noon people had come with their empty buckets",
        "They stood in the dry field and looked at {hero}, and then at the sky",
        "I cannot make rain. I only wanted to be important",
        "But {hero} carried water from the well until dark, and the next day the rain came anyway",
    ),
    _Boast(
        "I can talk to the bees",
        "By noon they said that the queen of the bees came to tea with {hero}",
        "A hundred bees sat on the church door, and they sent for {hero}",
        "I do not know one word of it. I just like to hum",
        "But {he} hummed so softly that the bees did fly away, and nobody ever knew why",
    ),
)
_BOASTS_BEGIN = (
    "{one_day}, the others were telling stories, and {hero} wanted to have the best one.",
    "{one_day}, {friend} told everyone about a long trip. {hero} had never been anywhere.",
    "{one_day}, nobody was listening to {hero}. So {he} said something louder.",
    "{one_day}, {hero} sat {place.at} with the others, and everyone but {him} had something to tell.",
)
_EYES = (
    "All eyes went wide.",
    "For a moment it felt wonderful.",
    "Nobody laughed. They believed every word.",
    "{friend} told the [baker|miller|postman], and soon everyone knew.",
)
_CANNOT = (
    "{hero} had never wanted so much to be [a mouse in a hole|a worm in the ground|very far away].",
    "{hero} looked for a way out, but there were [people|eyes|friendly faces] on every side.",
    "{he} thought of [running away|being ill]. {he} thought of a new lie, and then a bigger one.",
    "{his} mouth was dry as dust.",
)
_BOAST_LAUGH = (
    "It was very quiet. Then [somebody|{friend}|an old man] began to laugh, and it was a [friendly|warm|kind] laugh.",
    "Some of them were cross, [but not for long|but they had to smile].",
    '"Well," said {friend}. "That was the best story of the day."',
    "Nobody said a word, until [the baker|the miller|an old man] coughed and asked if there was any {food_noun}.",
)
_BOAST_ENDS = (
    "After that, {hero} still told stories. But {he} always began with the words, it is not true, but it is "
    "[good|funny|long].",
    "And people liked the [true|small|quiet] {hero} much better than the [big|loud] one.",
    "A true [thing|word|story] may be small, but you can [stand on it|keep it|build a house on it].",
    "From then on, {he} only [said what {he} could show|told what {he} had seen|said half as much].",
)


def boast(story: Story) -> None:
    big = story.pick(_BOASTS)
    story.put(boast=big, food_noun=story.pick(("cake", "soup", "pie", "bread and cheese")))
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_BOASTS_BEGIN)
    story.speak("hero", (big.claim,), SAY)
    story.say(_EYES, chance=0.8)
    story.say((f"{big.grows}.",))
    story.paragraph(chance=0.6)
    story.say((f"{big.test}.",))
    story.say(_CANNOT)
    story.speak("hero", (big.truth,), WHISPER)
    scenes.feel_sorry(story, chance=0.4)
    story.say(_BOAST_LAUGH)
    story.paragraph(chance=0.4)
    story.say((f"{big.really}.",))
    story.say(_BOAST_ENDS)
    scenes.close_tale(story, chance=0.3)
