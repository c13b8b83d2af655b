"""Plot: the hero strays from the path, is lost, notices something and comes home."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes, words
from alm.corpus.sources.tales.story import KINDLY, WHISPER, Story

_SETS_OUT = (
    "{one_day}, {hero} went out to pick {fruit} for {elder}.",
    "{one_day}, {elder} sent {hero} out for a basket of {fruit}.",
    "{one_day}, {hero} wanted to find the best {fruit} of all, the ones that grew behind {place.the}.",
    "{one_day}, {hero} took a basket and went to look for {fruit}.",
)
_WARNS = ("Stay on the path", "Be home before dark", "Do not go too far", "Keep the church tower in sight")
_STRAYS = (
    "But {he} saw a [blue butterfly|white bird|golden beetle] and followed it {way_1}, {way_2}, and on and on.",
    "The [best|biggest] ones [always|all] seemed to [be|grow] a little farther on. {he} went {way_1}, and then a "
    "little farther.",
    "{he} thought about [supper|{hobby}|the fair], and {his} feet went where they liked.",
    "There was a [path|gate|stream] that {he} had never seen before, and {he} only wanted to [know where it went|look "
    "for a moment].",
)
_LOST = (
    "When {he} looked up, [nothing looked the same|every tree looked like every other tree|the path was gone].",
    "Then [fog came up from the ground|the sun went behind the hills], and {he} could no longer see the way.",
    "{he} turned [left, and then right|around once, and then twice], and then {he} did not know where {he} was.",
    "[All at once|Suddenly] it was very [quiet|still|dark], and {he} knew that {he} was lost.",
)
_LOST_LINES = (
    "I think I am lost",
    "Which way is home?",
    "I should have stayed on the path",
    "Somebody must hear me",
    "I must not cry. I must think",
)
_CIRCLES = (
    "{he} walked and walked, and came back to the same [old stump|gray stone|crooked tree].",
    "{he} tried the path on the left, but it ended [at a high wall|at a dark pond|in deep mud].",
    "{he} called as loud as {he} could, but only [an owl|the wind|a cow] answered.",
    "{he} ran [up and down|one way and then another|from tree to tree], until {his} basket was [half empty|empty|full "
    "of leaves].",
)


@dataclass(frozen=True)
class _WayHome:
    """A way home: the sign that is noticed, and the place to which it leads."""

    idea: str
    walk: str


_WAYS_HOME = (
    _WayHome(
        "Then {he} heard water. {elder} had once told {him} that a stream always knows the way to the village.",
        "{he} followed the stream, step by step, over stones and under branches.",
    ),
    _WayHome(
        "Then {he} heard the church bell, far away. One, two, three, four, five.",
        "{he} walked toward the sound and stopped to listen at every ring.",
    ),
    _WayHome(
        "{he} climbed a tall tree, and from the top {he} saw a thin line of smoke.",
        "{he} kept the smoke in front of {him} and did not look left or right.",
    ),
    _WayHome(
        "The stars came out, and {hero} found the brightest one. It always stood over the roof at home.",
        "{he} walked with {his} nose up, right under the star.",
    ),
    _WayHome(
        "Then {he} saw something on the ground. It was one of the {fruit} that {he} had dropped!",
        "There was another, and another, and {he} followed them all the way back.",
    ),
    _WayHome(
        "Then {he} smelled something good. It was {food.a}, and {he} knew that smell!",
        "{he} followed {his} nose {way_3}, faster and faster.",
    ),
    _WayHome(
        "Then a [white butterfly|small bird] came and flew ahead, stopped, and flew ahead again.",
        "{hero} followed it {way_3} and never lost sight of it.",
    ),
)
_HOME = (
    "And there was home, with a light in the window and {elder} at the door.",
    "{elder} was standing at the gate with a lantern, calling {his} name.",
    "At last {he} saw the light of {his} own home, and {elder} came running.",
    "Soon {he} knew every stone again, and then {he} saw {elder} waiting.",
)
_HOME_LINES = (
    "There you are! I was so worried",
    "You are home, and that is all that matters",
    "I knew that you would find the way",
    "Come in and get warm, my dear",
)
_LEARNED = (
    "There were only three of the {fruit} left in the basket, but {elder} said they were the best ever.",
    "The next time, {hero} [tied a ribbon to every tree|dropped a white stone at every turn].",
    "From that day on, {hero} looked back as often as {he} looked ahead.",
    "And {hero} stayed on the path for a whole year, or nearly.",
    "{hero} ate all the soup and promised to stay on the path.",
)


def lost_way(story: Story) -> None:
    story.put(fruit=story.pick(words.FRUITS))
    way = story.pick(_WAYS_HOME)
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_SETS_OUT)
    story.speak("elder", _WARNS, KINDLY, chance=0.6)
    story.say(_STRAYS)
    story.paragraph(chance=0.6)
    story.say(_LOST)
    scenes.feel_scared(story)
    story.speak("hero", _LOST_LINES, WHISPER, chance=0.7)
    story.say(_CIRCLES)
    story.paragraph(chance=0.7)
    story.say((way.idea,))
    story.say((way.walk,))
    story.say(_HOME)
    story.speak("elder", _HOME_LINES, KINDLY)
    scenes.feel_glad(story, chance=0.3)
    story.say(_LEARNED)
    scenes.close_tale(story, chance=0.3)
