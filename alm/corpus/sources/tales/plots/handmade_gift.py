"""Plot: the hero has no money for a gift and makes one, and its flaw becomes the best part."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import GLADLY, SAY, Story


@dataclass(frozen=True)
class _Handmade:
    """A handmade gift: its making, the mishap, the rescue, and the reason why it is loved."""

    a: str
    made: str
    wrong: str
    saved: str
    loved: str


_HANDMADE = (
    _Handmade(
        "a long scarf",
        "made it from old wool every night when the others were asleep",
        "fell asleep over it, and there was a hole as big as a plum",
        "sewed a yellow flower over the hole",
        "the yellow flower was the best part of it",
    ),
    _Handmade(
        "a drawing of the whole family",
        "drew it with a bit of coal from the stove",
        "knocked over a cup of tea, right on one corner",
        "turned the brown spot into a big, friendly bear",
        "everyone wanted to know the name of the bear",
    ),
    _Handmade(
        "a wooden spoon",
        "cut it from a branch of the old apple tree",
        "cut too deep, and the spoon came out as crooked as a road",
        "bent the other end as well, so that it looked right",
        "no other spoon could reach the last drop of soup",
    ),
    _Handmade(
        "a honey cake",
        "baked it with the last of the honey",
        "opened the oven too soon, and the cake fell flat",
        "filled the hole with berries and called it a berry nest",
        "it was gone in no time, down to the last bite",
    ),
    _Handmade(
        "a little book of stories",
        "wrote one page every day and sewed the pages together",
        "forgot to write down the end",
        "left the last page white, so that everyone could make up an end",
        "it had a new end every time",
    ),
    _Handmade(
        "a string of acorns",
        "picked the best acorns and put them on a string",
        "left it on the step, and a squirrel ate half of it",
        "put little white stones in between",
        "it sounded like rain when it moved",
    ),
    _Handmade(
        "a soft pillow",
        "sewed it from an old coat and filled it with wool",
        "made two of the corners much too long",
        "painted a face on it and called them ears",
        "it was a pillow and a rabbit at the same time",
    ),
    _Handmade(
        "a pot for flowers",
        "made it from river mud and dried it in the sun",
        "left it out in the rain, and it bent to one side",
        "painted a ladder on it, for the flowers to climb",
        "it looked as if the pot was saying hello",
    ),
)
_BIRTHDAYS = (
    "Soon it would be the birthday of {receiver}, and {hero} wanted to give something very special.",
    "{receiver} had a birthday in seven days. {hero} counted them on {his} {hero.hands}.",
    "{one_day}, {hero} remembered that the birthday of {receiver} was only a week away.",
    "Winter was coming, and {hero} wanted to thank {receiver} for a good year.",
)
_NO_MONEY = (
    "{he} emptied {his} pockets and found [a string, a nut|two nuts, a feather|a stone, an old key] and no money at "
    "all.",
    "{he} looked at all the fine things at the market, but {he} had only one small coin.",
    "In the shop there was {thing.a}, but it cost more than {he} had in the world.",
    "{he} shook {his} money box. One button fell out.",
)
_GIFT_IDEAS = (
    "Then I will make something",
    "I have two {hero.hands} and a whole week",
    "It does not have to be big. It has to be mine",
    "What do I have that nobody can buy?",
)
_MAKES = (
    "So {hero} began to make {gift.a}. {he} {made}.",
    "{he} thought for a whole day. Then {he} made {gift.a}. {he} {made}.",
    "In secret, {hero} made {gift.a}. {he} {made}, and nobody knew.",
)
_GOES_WRONG = (
    "But {he} {wrong}.",
    "Everything went well until {he} {wrong}.",
    "It was almost done when {he} {wrong}.",
    "On the last evening {he} {wrong}.",
)
_SAVES = (
    "There was no time to [start|begin|try] again. So {he} {saved}.",
    "{hero} cried for a minute. Then {he} {saved}.",
    "{hero} looked at it for a long time, and then {he} {saved}.",
    '"Now I must think," said {hero}, and {he} {saved}.',
)
_GIVES = (
    "On the day, {hero} stood there with [hot ears|pink cheeks|a dry mouth] and held out the gift.",
    "The others brought big boxes. {hero} put {his} gift [at the very end of the table|behind all the others|under a "
    "chair].",
    '"It is not [perfect|much|very big]," said {hero}, and {his} voice was [very small|as thin as a thread].',
    "{hero} hid it [behind {his} back|under {his} coat] until the last moment.",
)
_RECEIVES = (
    "{receiver} was quiet for so long that {hero} was afraid.",
    "{receiver} looked at it from every side and began to smile.",
    "{receiver} laughed out loud for joy.",
)
_RECEIVER_LINES = (
    "You made this for me?",
    "This is the one I will keep forever",
    "Nobody else in the world has one like it",
    "I can see that you made it yourself, and that is why I love it",
)
_GIFT_ENDS = (
    "And really, {loved}.",
    "The big boxes were soon forgotten. But {loved}.",
    "As it turned out, {loved}.",
    "Of all the gifts, it was the one that they talked about most, for {loved}.",
)


def handmade_gift(story: Story) -> None:
    gift = story.pick(_HANDMADE)
    scenes.choose_thing(story)
    story.put(gift=gift, made=story.fill(gift.made), wrong=gift.wrong, saved=gift.saved, loved=gift.loved)
    is_for_friend = story.happens(0.5)
    story.put(receiver=story.fill("{friend}" if is_for_friend else "{elder}"))
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_BIRTHDAYS)
    story.say(_NO_MONEY)
    story.speak("hero", _GIFT_IDEAS, SAY, chance=0.7)
    story.paragraph(chance=0.5)
    story.say(_MAKES)
    story.say(_GOES_WRONG)
    scenes.feel_sad(story, chance=0.35)
    story.say(_SAVES)
    story.paragraph(chance=0.8)
    story.say(_GIVES)
    story.say(_RECEIVES)
    story.speak("receiver", _RECEIVER_LINES, GLADLY)
    story.say(_GIFT_ENDS)
    scenes.feel_proud(story, chance=0.3)
    scenes.close_tale(story, chance=0.2)
