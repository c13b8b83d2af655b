"""Plot: something is stuck, the big ones pull without success, and the youngest one helps."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import GLADLY, REPLY, SAY, Story


@dataclass(frozen=True)
class _Stuck:
    """A character or thing that is stuck: the situation, the clever idea, and the release."""

    who: str
    how: str
    idea: str
    free: str


_STUCK = (
    _Stuck(
        "the farmer's cow",
        "had walked into the mud and was stuck up to its tail",
        "{he} put flat boards under its feet and held out a bunch of clover",
        "There was a long, wet sound, and out came the cow.",
    ),
    _Stuck(
        "the old goat",
        "had put its head through the fence and could not get it back",
        "{he} put a feather under its nose, and the goat had to sneeze",
        "Out came the head, and the goat sat down in surprise.",
    ),
    _Stuck(
        "the miller's cart",
        "had rolled into the ditch with all its sacks",
        "{he} took off the sacks, one by one, until the cart was light",
        "The wheels turned, and up came the cart.",
    ),
    _Stuck(
        "the fisherman's boat",
        "lay high on the sand, and the sea was far away",
        "{he} put wet leaves in front of it, all the way to the water",
        "The boat rolled, and slid, and swam.",
    ),
    _Stuck(
        "a young whale",
        "lay on the beach, and the sun was getting hot",
        "{he} dug a little ditch down to the sea, and the water came in",
        "With the next wave, the whale was free, and it blew water high into the air.",
    ),
    _Stuck(
        "the church bell",
        "had fallen from its place and would not ring",
        "{he} put a long log under it and sat down on the other end",
        "Up went the bell, and it rang with a deep, happy sound.",
    ),
    _Stuck(
        "a fat old pig",
        "was stuck under the gate and cried like a train",
        "{he} rubbed its tummy with soap",
        "The pig slid out like a fish.",
    ),
    _Stuck(
        "a turnip as big as a cart",
        "would not come out of the ground, not even a little",
        "{he} put a bucket of water around it, so that the ground grew soft",
        "The turnip flew out, and everyone fell down in a row.",
    ),
)
_STUCK_NEWS = (
    "{one_day}, there was [shouting|a great noise] {way_1}. {stuck.who} {stuck.how}.",
    "{one_day}, everybody ran {way_1} to see what had happened. {stuck.who} {stuck.how}.",
)
_STUCK_YOUNG = (
    "{hero} was the youngest of all, and nobody [asked {him} for help|asked what {he} thought|listened to {him}].",
    "[Day after day|Again and again] people told {hero} that {he} was too young.",
    "Nobody thought that {hero} [could be of any use|knew much|could help], and {hero} was not sure either.",
    "People liked {hero}, but they did not think that {he} was [strong|clever|big enough to help].",
)
_STUCK_PAIRS = (
    "There stood {helper.a} and {friend} not knowing what to do.",
    "{helper.a} was there already, and soon {friend} came as well.",
    "{friend} ran to get a rope, and {helper.a} came along to help.",
)
_STUCK_PULLS = (
    "{helper} pulled. {friend} pulled. Nothing moved.",
    "First {helper} tried alone. Then {friend} took hold as well. They pulled until their faces were red.",
    "They tied a rope and pulled, all in a row, {helper} in front and {friend} at the end. The rope broke.",
    "{friend} pushed from behind and {helper} pulled from the front. It only got worse.",
    "{helper} shouted and {friend} counted to three, again and again, but it was no good.",
)
_STUCK_OFFERS = (
    "Let me try",
    "I have an idea",
    "May I help?",
    "What if I try it another way?",
    "I can do something, too",
)
_STUCK_REFUSALS = (
    "You are much too young",
    "If we cannot do it, how could you?",
    "This is work for big people",
    "Stand back, little one",
    "Well, it cannot hurt",
)
_STUCK_IDEA = (
    "{hero} did not pull at all. {idea}.",
    "But {hero} looked at it from the left and from the right. Then {idea}.",
    "{hero} had been thinking the whole time. Now {idea}.",
    "While the others sat down to rest, {hero} went to work. {idea}.",
)
_STUCK_EFFORT = (
    "{hero} took hold at the very end, behind all the others. It was only a little bit more, but a little bit was "
    "just what was missing.",
    "{hero} pushed where nobody else could fit. It was not much, but it was enough.",
)
_STUCK_CHEERS = (
    "Everyone [cheered|shouted|clapped] and looked around for {hero}.",
    "For a moment nobody said a word. Then they all [talked|laughed|clapped] at once.",
    "They put {hero} on their shoulders and carried {him} {way_2}.",
    "{friend} threw a [hat|sock|boot] into the air, and it [never came down|came down in a tree|fell on {helper}].",
)
_STUCK_PRAISE = (
    "How did you think of that?",
    "We should have asked you first",
    "You are young, but your ideas are big",
    "Never again will I call you too young",
)
_STUCK_ENDS = (
    'After that, when something was too hard, people said, "Ask {hero}."',
    "{hero} was still young. But nobody talked about that any more.",
    "That evening there was {food.a} for all, and {hero} got the first piece.",
    "It is good to be strong, but it is just as good to think.",
    "When {hero} came home, {elder} said that {he} looked taller than before.",
)


def stuck(story: Story) -> None:
    trouble = story.pick(_STUCK)
    story.put(stuck=trouble, idea=story.fill(trouble.idea))
    scenes.open_tale(story)
    story.say(_STUCK_YOUNG)
    story.paragraph(chance=0.8)
    story.say(_STUCK_NEWS)
    story.say(_STUCK_PAIRS)
    story.say(_STUCK_PULLS)
    story.speak("hero", _STUCK_OFFERS, SAY)
    story.speak("helper", _STUCK_REFUSALS, REPLY, chance=0.7)
    story.paragraph(chance=0.7)
    story.say(_STUCK_IDEA if story.happens(0.75) else _STUCK_EFFORT)
    story.say((trouble.free,))
    story.say(_STUCK_CHEERS)
    story.speak("friend", _STUCK_PRAISE, GLADLY, chance=0.7)
    scenes.feel_proud(story, chance=0.4)
    story.say(_STUCK_ENDS)
    scenes.close_tale(story, chance=0.2)
