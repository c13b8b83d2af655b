"""Plot: two friends race, and something on the way matters more than winning."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import GLADLY, REPLY, Shapes, Story

_RACE_BEGINS = (
    "{friend} was the fastest {friend.kind} for miles around, and liked to say so.",
    "{hero} and {friend} could never agree who [was faster|had the longer legs|ran better].",
    "Every year there was a race from the church to {place.the}, and this year {hero} and {friend} wanted to win it.",
    "{one_day}, {friend} laughed at {hero} for being slow.",
)
_RACE_DARES = (
    "I can run twice as fast as you",
    "Let us race to {place.the} and back",
    "You will only see my back",
    "The last one at {place.the} has to carry the other one home",
    "I could win on one leg",
)
_RACE_TAKES = (
    "We will see about that",
    "All right, let us run",
    "Being fast is not everything",
    "I will try, and that is all",
)
_RACE_STARTS = (
    "{helper.a} counted to three, and off they went, {way_1} and {way_2}.",
    "Everyone came to watch. A bell rang, and they were off, {way_1}.",
    "{helper.a} dropped a leaf, and when it touched the ground, they ran.",
    "They stood side by side with one foot in front. [One, two, three|The baker clapped], and off they "
    "[flew|went|ran].",
)
_RACE_LEADS = (
    "{friend} was soon so far ahead that {hero} could only see [dust|{friend.his} back|something small].",
    "At first they were [side by side|close together], nose to nose.",
    "{hero} fell behind at once, but {he} [kept on|did not stop], step after step.",
    "For once {hero} was in front, and the wind [sang|laughed] in {his} ears.",
)


@dataclass(frozen=True)
class _Turn:
    """A turn of a race: the event, the hero's act, the end, and the friend's words."""

    happens: str
    act: str
    end: str
    lines: Shapes


_RACE_TURNS = (
    _Turn(
        "[At the corner|Near the end|Halfway there] {friend} tripped over a [stone|log] and fell.",
        "{hero} could have run past. But {he} stopped and [held out a stick|sat down beside {friend.him}].",
        "They came in together, [arm in arm|one step at a time], and everyone cheered twice.",
        (
            "You could have won",
            "You are good at running, but better at being a friend",
            "I would rather be last with you than first alone",
        ),
    ),
    _Turn(
        "On the bridge {friend}'s foot got caught between two boards.",
        "{hero} stopped, looked at the goal, and turned back to help.",
        "They walked the last part side by side. Nobody asked who had won.",
        ("You could have won", "I will never call you slow again", "What a friend you are"),
    ),
    _Turn(
        "{friend} was so far ahead that {friend.he} lay down to sleep in the [grass|hay|clover].",
        "{hero} did not stop. Step, step, step, {he} went, [past {friend}|without a sound], on and on.",
        "When {friend} came running, {hero} was already sitting on the wall at the goal.",
        ("I will never sleep in a race again", "How did you do that?", "You are slow, but you do not stop"),
    ),
    _Turn(
        "{friend} was so far ahead that {friend.he} stopped to pick berries, and then some more.",
        "{hero} went by on {his} toes and did not make a sound.",
        "{hero} got there first, by no more than a nose.",
        ("They were very good berries", "How did you get past me?", "Next time I will eat after the race"),
    ),
    _Turn(
        "Then a [duckling|chick|kitten] sat in the middle of the road and cried.",
        "{friend} jumped over it and ran on. {hero} stopped and carried it home, and that took a long time.",
        "{hero} came in last. But everyone had heard what {he} had done, and they cheered for {him} the longest.",
        ("I won, but I think you did, too", "Next time I will stop first", "You won something better than a race"),
    ),
    _Turn(
        "Then they saw an old woman who had dropped all the apples.",
        "{hero} stopped. {friend} ran three more steps, and then {friend.he} stopped as well.",
        "When all the apples were back in the basket, nobody could remember who had been ahead.",
        ("I like apples better than gold", "Let us say that we both won", "I am glad that you stopped"),
    ),
    _Turn(
        "Then it began to rain so hard that they could not see the way.",
        "They slipped and slid and pulled each other up again, and they could not stop laughing.",
        "They came in last of all, brown with mud from nose to toes.",
        ("That was the best race ever", "Let us do that again tomorrow", "I do not even know who was ahead"),
    ),
    _Turn(
        "Then the path ended at a stream that had not been there before.",
        "{hero} knew how to build and {friend} knew how to jump, so they had to go on together.",
        "Nobody was waiting at the goal any more, so they bowed to each other and went home.",
        ("Next time we should be on the same team", "We would make a good team", "I could not have done it alone"),
    ),
)
_RACE_ENDS = (
    "They hung the ribbon on a tree, where both could see it.",
    "From then on, they raced every week, and they never kept count.",
    "It is good to be fast, {hero} thought, but it is better to get there together.",
    "{hero} ran home, not to win, but just because running felt so good.",
    "That evening they shared {food.a}, and both got the same.",
)


def race(story: Story) -> None:
    turn = story.pick(_RACE_TURNS)
    scenes.open_tale(story)
    story.say(_RACE_BEGINS)
    story.paragraph(chance=0.6)
    story.speak("friend", _RACE_DARES, GLADLY)
    story.speak("hero", _RACE_TAKES, REPLY)
    story.say(_RACE_STARTS)
    story.say(_RACE_LEADS)
    story.paragraph(chance=0.8)
    for beat in (turn.happens, turn.act, turn.end):
        story.say((beat,))
    story.speak("friend", turn.lines, GLADLY)
    story.say(_RACE_ENDS, chance=0.8)
    scenes.close_tale(story, chance=0.25)
