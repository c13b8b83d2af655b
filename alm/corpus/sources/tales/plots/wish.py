"""Plot: a wish comes true, is fun, becomes too much, and is taken back."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import SADLY, SAY, Shapes, Story


@dataclass(frozen=True)
class _Wish:
    """A wish: its words, the fun, the trouble, and the thing that is loved again when it is over."""

    words: str
    why: Shapes
    fun: Shapes
    trouble: Shapes
    undone: str
    after: Shapes


_WISHES = (
    _Wish(
        "I wish I were as tall as a tree",
        ("{hero} was tired of being small.", "{hero} could never reach the best apples."),
        (
            "{he} could pick apples without a ladder and look into the nests of the birds.",
            "{he} stepped over the river as if it were a puddle.",
        ),
        (
            "But {he} did not fit into {his} own bed, and nobody could hear what {he} said from so far up.",
            "But the birds built nests in {his} hair, and {his} friends were so tiny that {he} was afraid to move.",
        ),
        "I wish I were small again",
        (
            "{he} crept into {his} little bed, and it was just right.",
            "{hero} still could not reach the best apples, but there was a ladder for that.",
        ),
    ),
    _Wish(
        "I wish I could fly",
        ("{hero} had watched the birds all day.", "It was a long way to the market, and {his} legs were tired."),
        (
            "Up {he} went, over the roofs and into the clouds, which were wet and cold and wonderful.",
            "{he} raced the crows around the church, and {he} nearly won.",
        ),
        (
            "But {he} could not stop. {he} flew while {he} ate, and {he} flew while {he} slept.",
            "But it was lonely up there, and the wind blew {him} where it liked.",
        ),
        "I wish I had both feet on the ground",
        (
            "The grass under {his} feet had never felt so good.",
            "{hero} still looks at the birds, but with both feet on the grass.",
        ),
    ),
    _Wish(
        "I wish it were summer all year long",
        (
            "The leaves were falling, and the wind was already cold.",
            "{hero} did not like wool socks, and winter was near.",
        ),
        ("The sun shone and shone, and {he} swam every day.", "There were berries in winter, and nobody wore boots."),
        (
            "But the river dried up, the flowers were tired, and nothing wanted to grow.",
            "But there was no snow, no fire in the stove, and no new leaves, because the old ones would not fall.",
        ),
        "I wish for winter, and then for spring",
        (
            "The next morning there was frost on the window, and {hero} danced in it.",
            "When the first snow fell, {hero} caught it on {his} tongue. It tasted like cake.",
        ),
    ),
    _Wish(
        "I wish everything I touched were made of cake",
        ("It was a long time until supper.", "{hero} could never get enough sweet things."),
        (
            "The chair was cake, and the table was cake, and {he} ate the door for lunch.",
            "{he} ate a whole fence, and it was the best fence {he} had ever eaten.",
        ),
        (
            "But then {he} touched {his} pillow, and then the cat, and the cat did not like it at all.",
            "But {he} could not sleep, or wash, or hug anyone. Crumbs were everywhere.",
        ),
        "I wish things were only things",
        (
            "For supper {he} had plain bread, and it was the best in the world.",
            "{he} hugged the cat, which was soft again, for a long time.",
        ),
    ),
    _Wish(
        "I wish I never had to go to bed",
        (
            "{elder} had just said that it was bedtime.",
            "{hero} always said that the best part of the day came after bedtime.",
        ),
        (
            "{he} played until the moon was gone, and then {he} played until morning.",
            "{he} saw the stars go out, one by one.",
        ),
        (
            "But {his} head was full of fog, and {he} put {his} boots in the soup.",
            "But {his} eyes hurt, and nobody was awake to play with.",
        ),
        "I wish I could sleep",
        (
            "{he} slept for a day and a night, and woke up hungry and happy.",
            "After that, {hero} went to bed as soon as the first star was out.",
        ),
    ),
    _Wish(
        "I wish nobody could see me",
        ("{hero} had done something silly, and everyone was laughing.", "{hero} did not want to wash the pots."),
        (
            "{he} walked right through the kitchen and took a bite of everything.",
            "{he} could win at hide and seek without hiding.",
        ),
        (
            "But nobody said good morning, and at supper there was no plate for {him}.",
            "But {friend} sat on {him} and did not know it, and {elder} cried because {he} was gone.",
        ),
        "I wish to be seen again",
        (
            "{elder} looked straight at {him} and smiled, and that was better than any game.",
            "{he} washed all the pots, and sang, so that everyone would know where {he} was.",
        ),
    ),
    _Wish(
        "I wish I could talk to every animal",
        ("{hero} had always wondered what the hens were saying.", "A crow had looked at {him} in a very strange way."),
        (
            "The hens told {him} about their eggs, and the mice told {him} jokes.",
            "The old horse told {him} a story that was three hundred years long.",
        ),
        (
            "But they never stopped. The bees talked all night, and the fish were sad about everything.",
            "But then the fox wanted help with the hens, and the hens wanted help with the fox.",
        ),
        "I wish for a little quiet",
        (
            "That evening {he} sat with the old horse, and nobody said a word, and it was lovely.",
            "{hero} could not understand the hens any more, but {he} still said good night to each of them.",
        ),
    ),
)
_WISH_GIVERS = (
    ("{one_day}, {hero} found an old well, so deep that it had a star in it.", "the well"),
    (
        "One night a star fell, right behind {place.the}, and {hero} ran to find it. It was warm and no bigger than an "
        "egg.",
        "the star",
    ),
    ("{one_day}, {hero} pulled a small golden fish out of a net by the river and let it go. It swam back.", "the fish"),
    ("{one_day}, {hero} helped a bee out of the water. It was a queen, with a tiny crown.", "the bee"),
    ("{one_day}, {hero} blew on a dandelion on the way to {place.the}, and it laughed.", "the dandelion"),
    ("{one_day}, {hero} rubbed the dust off an old spoon, and the spoon sneezed.", "the spoon"),
    ("{one_day}, {hero} picked up a gray stone on the way to {place.the}, and it opened one eye.", "the stone"),
)
_WISH_OFFERS = (
    "You may have one wish",
    "Wish for something, but think first",
    "One wish is yours. Be careful with it",
    "What would you like [most|best] in the whole world?",
)
_WISH_ASKS = (
    "{hero} did not think long.",
    "{hero} closed {his} eyes.",
    "{hero} knew at once what to say.",
    "The words just came out.",
)
_WISH_TRUE = (
    "There was a bright light, and it was so.",
    "Nothing happened. Then everything did.",
    "There was a smell of apples, and the wish came true.",
    "By the next morning it had come true.",
    "At first it was wonderful.",
)
_WISH_SORRY = (
    "Soon {he} was sadder than ever.",
    "It was not [what {he} had wanted at all|as much fun as {he} had thought|a good wish after all].",
    "{hero} sat down and thought about it, and it took a long time.",
    "So {hero} went back to {wisher}, as fast as {he} could.",
)
_WISH_UNDONE = (
    '{wisher} was not surprised. "They all come back," said {wisher}, and made it so.',
    "{wisher} only winked, and everything was as it had been before.",
    '"I thought so," said {wisher}, and it was done.',
)
_WISH_ENDS = (
    "And {hero} kept one thing from all of it, and that was the story.",
    "Be careful what you wish for, people say. But if {he} had not wished, {he} would not have known.",
    "{hero} looked around, and everything that {he} needed was there already.",
    "Sometimes {he} still goes to see {wisher}, but only to say hello.",
)


def wish(story: Story) -> None:
    wished = story.pick(_WISHES)
    found, wisher = story.pick(_WISH_GIVERS)
    story.put(wisher=wisher)
    if "summer" in wished.words:
        story.put(one_day=story.pick(("one day in autumn", "one windy autumn day", "late one autumn afternoon")))
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say((found,))
    story.speak("wisher", _WISH_OFFERS, SAY)
    story.say(wished.why, chance=0.7)
    story.say(_WISH_ASKS, chance=0.6)
    story.speak("hero", (wished.words,), SAY)
    story.paragraph(chance=0.5)
    story.say(_WISH_TRUE, chance=0.8)
    story.say(wished.fun)
    story.say(wished.trouble)
    story.say(_WISH_SORRY)
    story.speak("hero", (wished.undone,), SADLY)
    story.say(_WISH_UNDONE, chance=0.8)
    story.paragraph(chance=0.5)
    story.say(wished.after)
    story.say(_WISH_ENDS, chance=0.8)
    scenes.close_tale(story, chance=0.15)
