"""Plot: the hero is in a hurry but stops for a stranger."""

from __future__ import annotations

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import KINDLY, REPLY, Mention, Story

_STRANGERS = (
    ("an old man", "the man"),
    ("an old woman", "the woman"),
    ("a thin old donkey", "the donkey"),
    ("a gray old goose", "the goose"),
    ("a tired traveler", "the traveler"),
    ("a tired old goat", "the goat"),
    ("a small woman in a green coat", "the woman"),
    ("a man with a big gray hat", "the man"),
    ("an old horse with one white ear", "the horse"),
)
_LOADS = (
    ("a heavy sack of flour", "the sack"),
    ("a heap of wood", "the wood"),
    ("a cart with a broken wheel", "the cart"),
    ("a box that was much too big", "the box"),
    ("two buckets full of water", "the buckets"),
    ("a ladder with a pot at each end", "the ladder"),
    ("a basket full of stones", "the basket"),
)
_HURRIES = (
    "{one_day}, {hero} was in a hurry. There was a [puppet show|fair|picnic] {place.at}, and {he} did not want to be "
    "late.",
    "{one_day}, {hero} was on the way to {place.the}, [whistling|thinking of {food.a}|running as fast as {he} could].",
    "{one_day}, {elder} sent {hero} to {place.the} with a letter.",
    "{one_day}, {hero} was going {way_1} with {food.a} in {his} bag.",
)
_SEES_STRANGER = (
    "Beside the road {he} saw {stranger.a} with {load.a}.",
    "At the foot of the hill stood {stranger.a}, pulling at {load.a}.",
    "There, in the hot sun, sat {stranger.a} beside {load.a}.",
    "{way_2} came {stranger.a}, struggling with {load.a}.",
)
_OTHERS_PASS = (
    "A farmer went by and did not even look.",
    "Two others had walked past already, looking the other way.",
    "A fine cart rolled past and left only dust.",
    "Everyone else was too busy to stop.",
)
_HESITATES = (
    "{hero} thought of how late it was. Then {he} thought of those tired eyes, and {he} stopped.",
    "{hero} walked past, ten steps, eleven, twelve. Then {he} turned around.",
    "{hero} did not think about it for very long.",
    "If {he} stopped now, {he} would be late. {he} stopped.",
)
_OFFERS = (
    "May I help you with that?",
    "That looks heavy. Let me take one end",
    "You look tired. Sit down and let me try",
    "I am not very strong, but two can do more than one",
)
_STRANGER_ANSWERS = (
    "You are the first one who asked",
    "It is a long way, little one. Are you sure?",
    "How kind of you. My back is not what it was",
    "Nobody has talked to me all day",
)
_WORK = (
    "So {hero} [pushed|pulled] and {stranger.the} [pulled|pushed], {way_1} and {way_3}.",
    "It was hard work. {hero} had to rest three times, and each time {stranger.the} told {him} a story.",
    "{hero} took hold of {load.the} and did not let go until {his} {hero.hands} hurt.",
    "They shared {food.part} and the work, and the way seemed shorter than it was.",
    "Once they nearly lost everything in the ditch, but {hero} held on with both {hero.hands}.",
)
_ARRIVES = (
    "At last they came to a [tiny|crooked|white] house with a [blue|green|round] door.",
    "The sun was low when they came to [the top of the hill|the last house|a gate in a long wall].",
    "In the end they reached the place, and {stranger.the} took a long breath.",
)
_REWARDS = (
    (
        "{stranger.the} gave {him} a [small|gray|round] seed and a smile.",
        "{hero} planted it by the door, and in the spring it grew into a rose bush with flowers of every color.",
    ),
    (
        "{stranger.the} gave {him} a plain wooden whistle.",
        "Years later, lost in the fog, {hero} blew it once, and a gray bird came and led {him} home.",
    ),
    (
        "{stranger.the} sang {him} a song with only three words.",
        "Whenever {hero} sang it, even the loudest baby stopped crying.",
    ),
    (
        "{stranger.the} had nothing to give but a smile and a good word.",
        "{hero} carried that good word home, and it was not heavy at all.",
    ),
    (
        "{stranger.the} opened a little bag and gave {him} an old coin with a hole in it.",
        "{hero} wore it on a string and gave it, one day, to someone who had helped a stranger.",
    ),
    (
        "{stranger.the} put up a little table and took three puppets out of a box.",
        "The whole village came to see the show, and {hero} got the best seat.",
    ),
    (
        "{stranger.the} pointed to a path that nobody knew.",
        "{hero} followed it and came to a hill full of berries, sweet and warm from the sun.",
    ),
)
_STRANGER_ENDS = (
    "After that, {hero} never passed [anyone|an old man|a heavy cart] on the road without [asking|stopping|saying "
    "hello].",
    "When {hero} came home, {elder} asked why {he} was late, and then {elder} was proud.",
    "If {hero} had [been in time|walked on|looked away] that day, {he} would have missed the best [part of it|day of "
    "the year].",
    "And when {hero} was [tired|wet|hungry] and far from home {himself}, somebody always [stopped|came by|helped].",
)


def stranger_helped(story: Story) -> None:
    stranger, load = story.pick(_STRANGERS), story.pick(_LOADS)
    story.put(stranger=Mention(*stranger), load=Mention(*load), other=stranger[1])
    gift, later = story.pick(_REWARDS)
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_HURRIES)
    story.say(_SEES_STRANGER)
    story.say(_OTHERS_PASS, chance=0.6)
    story.say(_HESITATES, chance=0.7)
    story.paragraph(chance=0.6)
    story.speak("hero", _OFFERS, KINDLY)
    story.speak("other", _STRANGER_ANSWERS, REPLY, chance=0.7)
    for work in story.several(_WORK, 2 if story.happens(0.5) else 1):
        story.say((work,))
    story.paragraph(chance=0.6)
    story.say(_ARRIVES)
    story.say((gift,))
    story.say((later,))
    story.say(_STRANGER_ENDS)
    scenes.close_tale(story, chance=0.2)
