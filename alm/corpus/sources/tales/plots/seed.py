"""Plot: a seed takes its time, and the hero must wait."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import ADVISE, WHISPER, Shapes, Story


@dataclass(frozen=True)
class _Plant:
    """A grown plant, and the use of it."""

    seed: str
    grows: Shapes
    use: Shapes


_PLANTS = (
    _Plant(
        "a striped gray seed",
        ("It grew past the window and past the roof, and opened one great yellow eye. It was a sunflower.",),
        ("The birds ate its seeds all winter, and one of them fell right in front of {hero}.",),
    ),
    _Plant(
        "a flat white seed",
        (
            "A green rope ran over the wall, and at its end sat a pumpkin as big as a cart.",
            "Under the big leaves lay something round and orange, and it grew every night.",
        ),
        ("There was pumpkin soup for the whole village.", "A family of mice moved in, and there was soup for all."),
    ),
    _Plant(
        "a brown seed from the middle of an apple",
        ("It took years. {hero} grew, and the tree grew faster, and one spring it was white with flowers.",),
        ("Now {hero} sits in its shade, and there are apples for everyone who comes by.",),
    ),
    _Plant(
        "a red bean with a spot",
        ("It climbed up a stick, and up the wall, and looked in at the window.",),
        ("There were so many beans that {hero} gave away a basket every day.",),
    ),
    _Plant(
        "a seed as small as dust",
        ("It was not a tree, and it was not a bean. It was a poppy, as red as a king's coat.",),
        ("The next year there were ten of them, and the year after that, a whole field.",),
    ),
    _Plant(
        "a small hard stone from a plum",
        ("It was only a stick with two leaves, and then a bush, and then it was full of plums.",),
        ("{elder} made plum pie, and {hero} put the stones in {his} pocket to plant them all.",),
    ),
    _Plant(
        "a seed with a soft tail",
        ("It was only a dandelion. But it was the brightest one that anyone had ever seen.",),
        ("{hero} blew, and a hundred little stars flew over the wall to see the world.",),
    ),
)
_SEED_BEGINS = (
    "{one_day}, {helper.a} gave {hero} {plant.seed} and told {him} to be patient.",
    "{one_day}, {hero} found {plant.seed} in {his} pocket and did not know where it came from.",
    "{one_day}, {elder} put {plant.seed} in {hero}'s {hero.hands}.",
    "{one_day}, a bird dropped {plant.seed} right in front of {hero}.",
)
_SEED_PLANTS = (
    "{he} dug a small hole [under the window|beside the gate|behind the house], put it in and gave it some water.",
    "{he} planted it by the [door|gate|wall], where the sun came [first|every morning].",
    "{he} [found|took] an old [boot|pot|bucket], filled it with good [black|dark] earth and planted it there.",
)
_SEED_WAITS = (
    "The next morning {he} ran out to look. There was [nothing|only mud]. There was nothing the day after that, "
    "either.",
    "{he} sat beside it for a whole day. Nothing came up but [a worm|an ant|a beetle].",
    "{hero} watered it every day and [told it to hurry. It did not hurry|told it stories. It did not listen].",
    "A week went by, and then another. The earth was as [flat|black|empty] as ever.",
)
_SEED_IMPATIENT = (
    "{hero} wanted to dig it up and look, but {elder} held {him} back.",
    "{hero} pulled at the ground. {hero} sang to it. {hero} shouted at it.",
    '"It is never going to grow," said {friend} and ran off to play.',
    "{hero} nearly gave up, but {he} gave it one more [cup of water|day], and then one more.",
)
_SEED_LINES = (
    "Why does it take so long?",
    "Please grow, just a little",
    "Maybe it is asleep",
    "What are you doing down there?",
)
_SEED_ADVICE = (
    "It is working where you cannot see it",
    "You cannot pull a flower out of the ground. You can only wait for it",
    "Good things take the time they take",
    "Water it, and then do something else",
)
_SEED_SPROUTS = (
    "Then, one {weather} morning, there was a tiny green hook in the earth.",
    "After a [warm|soft|long] rain something had changed. One [thin|tiny|bright] green leaf stood there, as if to say "
    "[hello|good morning].",
    "And on the very day when {he} had [forgotten to look|nearly given up|stopped thinking about it], it came up.",
)
_SEED_DANGERS = (
    "A [snail|goat|hen] wanted to eat it, but {hero} built a little fence around it.",
    "One night there was frost, and {hero} covered it with {his} own [scarf|hat|blanket].",
    "It was a dry summer, and {hero} carried water from the well twice a day.",
    "The wind bent it to the ground, and {hero} tied it to a stick with a ribbon.",
)
_SEED_ENDS = (
    "And {hero}, who had never been patient, knew how to wait.",
    "Everything big was small once, {hero} thought, and [stood up a little taller|smiled at {his} own feet].",
    "When {elder} asked how {he} had done it, {hero} said that {he} had [mostly waited|only carried water].",
    "Whenever {hero} cannot wait for something, {he} thinks of {plant.seed}.",
)


def seed(story: Story) -> None:
    plant = story.pick(_PLANTS)
    story.put(plant=plant, weather=story.pick(("sunny", "misty", "bright", "fresh", "mild")))
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_SEED_BEGINS)
    story.say(_SEED_PLANTS)
    story.say(_SEED_WAITS)
    story.speak("hero", _SEED_LINES, WHISPER, chance=0.7)
    story.paragraph(chance=0.4)
    story.say(_SEED_IMPATIENT, chance=0.8)
    story.speak("elder", _SEED_ADVICE, ADVISE, chance=0.7)
    story.paragraph(chance=0.5)
    story.say(_SEED_SPROUTS)
    scenes.feel_glad(story, chance=0.5)
    story.say(_SEED_DANGERS, chance=0.75)
    story.say(plant.grows)
    story.paragraph(chance=0.3)
    story.say(plant.use)
    story.say(_SEED_ENDS, chance=0.8)
    scenes.close_tale(story, chance=0.15)
