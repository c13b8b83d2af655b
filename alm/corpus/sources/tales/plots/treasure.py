"""Plot: an old map leads two friends to a treasure that is not gold."""

from __future__ import annotations

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import GLADLY_CRY, SAY, Shapes, Story

_MAPS = (
    "{one_day}, {hero} found an old map [in a bottle|under the floor|between the pages of a book|inside a clock]. "
    "There was a "
    "red cross on it.",
    "{one_day}, {hero} pulled a loose brick out of the wall. Behind it lay a map.",
    "{one_day}, {friend} came with a map that [a crow had dropped|had been inside an old hat].",
    "{one_day}, {elder} gave {him} an old coat. In the pocket was a map with a red cross.",
)
_MAP_LINES = ("That must be a treasure", "Let us follow it", "The cross is not far from here", "What a strange map")
_MAP_FRIENDS = (
    "{he} showed it to {friend} and they packed {food.a} and a spade.",
    "Alone it was no fun, so {he} took along {friend}.",
    "{friend} was good at maps, and so they went together.",
)
_FIRST_STEPS = (
    "First they had to go {way_1} and count [a hundred|twelve] steps.",
    "The line on the map went {way_1} and {way_2}.",
    "The map led them {way_1} and {way_2}, and then [up a hill|in a circle].",
    "They [walked|ran] {way_1}, {hero} in front with the map and {friend} behind with the spade.",
)
_STEPS = (
    "At the crooked tree they had to turn left, but which tree was not crooked?",
    "On the map was a drawing of a sleeping giant. It was the hill!",
    "They walked in the wrong direction for [an hour|a long time], because {hero} held the map upside down.",
    "{helper.a}, {helper.doing}, knew the place and showed them the way for {food.part}.",
    'There was a riddle on the back. What has teeth but cannot bite? "A comb," said {friend}, and the hill did look '
    "like one.",
)
_DIGS = (
    "And there, {spot_1} {place.at}, was a red stone. They began to dig.",
    "The cross was {spot_1} {place.at}. They dug until [the hole was as deep as {hero} was tall|their arms hurt|only "
    "their ears could be seen].",
    "{spot_1} {place.at} the ground was soft. {hero} dug, and {friend} pulled out the [stones|roots].",
)
_CLANK = (
    "Then the spade hit something hard. It was a box!",
    "At last there was a sound. Clonk. It was the lid of [a chest|a box|an old pot].",
    "Just when they wanted to [stop|give up|go home], they saw [the corner of a rusty box|a bit of old wood. It was a "
    "box].",
)
_TREASURES: tuple[Shapes, ...] = (
    (
        'There was no gold in it. There was {thing.a} and a letter. "This is for you. Have fun with it," it said.',
        "They took turns with the {thing.noun} and wrote a letter of their own for the next one.",
    ),
    (
        "Inside lay a hundred buttons in every color of the rainbow.",
        "They gave one to everyone in the village, and kept two.",
    ),
    (
        "Inside was a small bag of seeds and nothing else.",
        "They planted them, and by summer there was a garden where there had been only stones.",
    ),
    (
        "In it was a drawing of two friends with a spade, very old. They looked just like {hero} and {friend}.",
        '{elder} laughed and said, "I wondered if somebody would ever find it. That is me on the left."',
    ),
    (
        "It was full of old coins, so black that they looked like buttons.",
        "With them they bought a new bell for the church and {food.a} for everyone.",
    ),
    (
        'It was empty. On the bottom somebody had painted the words, "The way was the treasure."',
        "They thought about it, and they had to say that it had been a very good way.",
    ),
    (
        "Inside was a toy ship, and it was as good as new.",
        "They sailed it {place_water}, and it flew over the water like a swan.",
    ),
)
_TREASURE_LINES = (
    "It is better than gold",
    "I thought it would be gold",
    "Who put it there?",
    "We found it! We really found it",
)
_TREASURE_ENDS = (
    "Then they hid the map [again|in a new place|under a stone], for somebody else to find.",
    "On the way home they were already [drawing|talking about] a map of their own.",
    "{hero} kept the map [over|under] {his} bed and looked at it every night.",
    "And somewhere there is another map, and another cross, and it may be close to you.",
    "They were tired and dirty, and they felt like kings.",
)


def treasure(story: Story) -> None:
    scenes.choose_thing(story)
    story.put(place_water=story.pick(("on the lake", "on the river", "on the duck pond")))
    inside, after = story.pick(_TREASURES)
    is_alone_at_first = story.happens(0.75)
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    if is_alone_at_first:
        story.say(_MAPS[:2] + _MAPS[3:])
        story.speak("hero", _MAP_LINES, GLADLY_CRY, chance=0.7)
        story.say(_MAP_FRIENDS)
    else:
        story.say(_MAPS[2:3])
        story.speak("friend", _MAP_LINES, GLADLY_CRY, chance=0.7)
    story.paragraph(chance=0.6)
    story.say(_FIRST_STEPS)
    story.say(_STEPS)
    story.say(_DIGS)
    story.say(_CLANK)
    story.paragraph(chance=0.6)
    story.say((inside,))
    story.speak("hero", _TREASURE_LINES, SAY, chance=0.6)
    story.say((after,))
    story.say(_TREASURE_ENDS)
    scenes.close_tale(story, chance=0.2)
