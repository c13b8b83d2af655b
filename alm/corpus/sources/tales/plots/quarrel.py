"""Plot: two friends fall out, are lonely, and make up."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes, words
from alm.corpus.sources.tales.story import ADVISE, CROSSLY, GLADLY, SADLY, Story


@dataclass(frozen=True)
class _Quarrel:
    """A quarrel: its cause, the shouts of each friend, and the solution at the end."""

    start: tuple[str, ...]
    hero_line: str
    friend_line: str
    mended: tuple[str, ...]


_QUARRELS = (
    _Quarrel(
        (
            "{one_day}, the two found {thing.a} {spot_1} {place.at}. They both reached for it.",
            "{one_day}, they were playing {place.at} when something {thing.look} caught the light. It was {thing.a}!",
        ),
        "I saw it first",
        "But I picked it up",
        (
            "They took turns with the {thing.noun}, one day here and one day there.",
            "They found out that {thing.the} belonged to {helper.a} and gave it back together.",
            "They hung {thing.the} on a tree by the road, so that it belonged to both of them.",
        ),
    ),
    _Quarrel(
        (
            "{one_day}, they raced to [the old wall|the last tree|the well]. They got there at nearly the same time.",
            "{one_day}, they ran [down the hill|around the pond] to see who was faster. It was very, very close.",
        ),
        "I won",
        "No, I won",
        (
            "They ran once more, [with one leg each tied together|holding on to each other], and nobody could say who "
            "won.",
            "After that, they raced the [wind|clouds], and they always came in last together.",
        ),
    ),
    _Quarrel(
        (
            "{one_day}, they built a [tower|castle|house] {place.at}. {hero} wanted it round, and {friend} wanted it "
            "tall.",
            "{one_day}, they made a [castle|tower|house] out of [stones|mud|sticks]. {hero} wanted to make it taller, "
            "but "
            "{friend} wanted to make it bigger.",
        ),
        "My way is better",
        "You never listen to me",
        (
            "They built it again, half of it one way and half of it the other, and it was better than before.",
            "This time they asked each other before every [stone|step], and it stood until [winter|the next storm].",
        ),
    ),
    _Quarrel(
        (
            "{one_day}, {friend} took {hero}'s {thing} home for the night. It came back [wet and dirty|covered with "
            "mud].",
            "{one_day}, {friend} played with {thing.the} that {hero} loved, and left it out in the rain.",
        ),
        "You said that you would take care of it",
        "But I did not mean to do it",
        (
            "They washed the {thing.noun} together until it looked like new, or almost.",
            "{friend} gave {him} a [drawing|flower] to make up for the {thing.noun}, and {hero} put it on the wall.",
        ),
    ),
    _Quarrel(
        (
            "{one_day}, {friend} waited and waited {place.at}, but {hero} had forgotten all about their picnic.",
            "{one_day}, {hero} went off to play with somebody else and forgot that {friend} was waiting {place.at}.",
        ),
        "I only forgot",
        "I waited all day for you",
        (
            "The next day {hero} was the first to come, with {food.a} in a basket.",
            "They had their picnic after all, and {hero} brought {food.a}.",
        ),
    ),
    _Quarrel(
        (
            "{one_day}, they shared {food.a}. One piece was left, and both of them wanted it.",
            "{one_day}, there was {food.a} to share, and {friend} cut it. One piece was [much|a little] bigger.",
        ),
        "You always take the big one",
        "That is not fair",
        (
            "From then on, one of them cut, and the other one took the first piece.",
            "They broke the last piece in two, and each gave the other the bigger half.",
        ),
    ),
)
_WORSE = (
    "They pulled and pushed until both of them sat in the mud.",
    "One angry word led to another.",
    "They shouted so loud that the [birds|crows] flew away.",
    "Then they both said things that they did not mean.",
)
_PARTINGS = (
    "{friend} turned around and went {way_1} without looking back.",
    "{hero} [ran|went] home and shut the door with a bang.",
    "{friend} went [one way|left|home], and {hero} [went the other|went right|stayed behind alone].",
    '"I will never [play with you|talk to you|share with you] again," said {friend}, and {friend.he} was gone.',
)
_ALONE = (
    "{hero} tried to play alone, but [who would hold the other end of the rope|nobody laughed at the jokes|hide and "
    "seek is no good for one].",
    "{hero} went to {place.the}, but it was [only a place|too quiet] without {friend}.",
    "{hero} built a [tower|boat|house of sticks], and there was no one to show it to.",
    "{hero} saw a cloud that looked like a [whale|goat in a hat] and turned to tell {friend}, but {friend} was not "
    "there.",
    "That day even {hobby} was no fun.",
)
_ADVICE = (
    "What do you want more, to be right or to have a friend?",
    "Somebody has to say sorry first, and it may as well be you",
    "Anger is like rain. It feels long, but it stops",
    "I think there is someone who feels just as sad as you",
    "There are many good days, but there is only one {friend}",
)
_TURNS = (
    "So {hero} took [a deep breath|{his} hat] and set out for {friend}'s home. [Halfway there|On the bridge|At the "
    "corner] {he} met {friend}, who was on the way "
    "to {his} home.",
    "The next morning {he} went {way_2} and knocked at {friend}'s door. It opened [at once|before {he} could knock "
    "twice|as if somebody had been waiting].",
    "{hero} walked {way_2}, practicing what to say. But there was {friend}, sitting [on the wall|by the gate|under a "
    "tree], all alone.",
    "[In the evening|Before supper|The next day] there was a knock at the door. It was {friend}, [looking at "
    "{friend.his} feet|with a flower|with wet eyes].",
)
_SORRY_LINES = (
    "I am sorry. I was wrong",
    "I am sorry that I shouted",
    "I missed you. I am sorry",
    "I do not want to be right. I want to be friends",
)
_SORRY_TOO = ("I am sorry, too", "I was just as wrong", "I missed you every minute", "Let us never do that again")
_BOTH = (
    '"I am sorry!" they said, both at the same time. Then they had to laugh.',
    "They both began to talk at once, and stopped, and began again, and then they laughed until they had to sit down.",
)
_STILL_FRIENDS = (
    "They still shouted now and then, but never for long.",
    "And if they ever fell out again, it was over by supper.",
    "{hero} and {friend} walked home side by side, talking all the way.",
    "Being friends again felt like coming in from the cold.",
    "Everyone could hear them laughing, all the way to {place.the}.",
)


def quarrel(story: Story) -> None:
    scenes.choose_thing(story)
    story.put(food=story.pick(words.CAKES))
    over = story.pick(_QUARRELS)
    scenes.open_tale(story)
    story.paragraph()
    story.say(over.start)
    story.speak("hero", (over.hero_line,), CROSSLY)
    story.speak("friend", (over.friend_line,), CROSSLY)
    story.say(_WORSE, chance=0.6)
    story.say(_PARTINGS)
    story.paragraph(chance=0.8)
    story.say(_ALONE)
    scenes.feel_lonely(story, chance=0.6)
    story.speak("elder", _ADVICE, ADVISE, chance=0.6)
    story.paragraph(chance=0.6)
    story.say(_TURNS)
    _make_up(story)
    story.say(over.mended)
    story.say(_STILL_FRIENDS, chance=0.7)
    scenes.close_tale(story, chance=0.15)


def _make_up(story: Story) -> None:
    if story.happens(0.3):
        story.say(_BOTH)
        return
    story.speak("hero", _SORRY_LINES, SADLY)
    story.speak("friend", _SORRY_TOO, GLADLY)
