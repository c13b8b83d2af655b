"""Plot: a young animal has lost its mother, and the hero brings it back."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import ADVISE, KINDLY, REPLY, SADLY, Story


@dataclass(frozen=True)
class _LittleOne:
    """A young animal: its sound, its mother, her place, and a line that identifies the place."""

    noun: str
    sound: str
    mother: str
    home: str
    clue: str


_LITTLE_ONES = (
    _LittleOne("duckling", "a small quack", "duck", "on the pond", "There is water, and there are lilies"),
    _LittleOne("kitten", "a thin meow", "cat", "on the baker's step", "It smells of warm bread"),
    _LittleOne("puppy", "a sad little bark", "dog", "in the yard of the mill", "A big wheel goes round and round"),
    _LittleOne("lamb", "a soft cry", "sheep", "behind the stone wall", "The grass is green and there is a wall"),
    _LittleOne("chick", "a tiny peep", "hen", "by the barn", "There is straw, and a red door"),
    _LittleOne("piglet", "a loud cry", "pig", "in the muddy yard", "There is mud. So much lovely mud"),
    _LittleOne("fawn", "a small cry", "deer", "among the tall trees", "The trees are tall and smell sweet"),
    _LittleOne("foal", "a thin cry", "horse", "in the barn", "There is hay, and the door is blue"),
    _LittleOne("calf", "a lonely moo", "cow", "in the green field", "There are flowers up to my knees"),
    _LittleOne("bear cub", "a low cry", "bear", "in the dark cave", "It is dark, and honey is near"),
    _LittleOne("baby rabbit", "a little cry", "rabbit", "under the hedge", "There are roots all around my bed"),
)
_HEARS = (
    "{one_day}, {hero} was walking past {place.the} when {he} heard [a sound|something]. It was {young.sound}.",
    "{one_day}, {hero} was [playing|alone] {place.at}. {sight}. Then, from somewhere close, came {young.sound}.",
    "{one_day}, on the way to {place.the}, {hero} heard {young.sound}.",
    "{one_day}, {hero} stopped {place.at} to rest {his} feet, and then {he} heard {young.sound}.",
)
_FINDS = (
    "{hero} looked {spot_1}, and there sat a [little|tiny|wet] {young.noun}, all alone.",
    "{spot_1} sat a {young.noun}, no bigger than a [loaf of bread|boot|teapot].",
    "{he} found a [small|shaking|sad] {young.noun} {spot_1}.",
    "There, {spot_1}, was a {young.noun} with [big wet eyes|mud on its nose|a leaf on its head].",
)
_LITTLE_CRIES = (
    "I cannot find my mother",
    "I followed a butterfly, and now I am lost",
    "I want to go home",
    "I only looked away for a moment",
    "I fell asleep, and when I woke up, everyone was gone",
)
_COMFORTS = (
    "Do not cry. I will help you",
    "We will find your mother together",
    "I was lost once, too. Come with me",
    "Do not be afraid. I know every path around here",
    "Your mother is looking for you, too. Let us go",
)
_ASKS_HOME = (
    "What does your home look like",
    "What do you remember about your home",
    "What is near your home",
    "Can you tell me about your home",
)
_WALKS = (
    "They [went|walked] {way_1} and {way_2}, and the {young.noun} stayed close to {hero}.",
    "{hero} [picked up the {young.noun}|let the {young.noun} ride on {his} back] and {hero.ran} {way_1}.",
    "So they set out, {way_1} and then {way_2}.",
    "To keep up their spirits, {hero} sang a song, and the {young.noun} sang along as well as it could.",
)
_WRONG = (
    "First they [came to|tried] {place.the}, but there they found only {helper.a}, {helper.doing}.",
    "They knocked at one door, but [nobody was home|an angry goat chased them away|the people there had only hens].",
    "They thought they saw a {young.mother} {spot_2}, but it was only [a bush|a heap of hay|a big gray stone|a cart].",
    "Twice they took the wrong path and had to go back.",
    "It began to rain, and they waited {spot_2} until it stopped.",
)
_HELPER_SAW = (
    "There is a {young.mother} {young.home}, and she has been calling all day",
    "Look {young.home}. I heard a {young.mother} crying there",
    "A {young.mother} ran past me, looking for someone small. She went back to wait {young.home}",
)
_REUNITED = (
    "At last they heard a voice. The mother {young.mother} was {young.home}, calling and calling.",
    "And {young.home} they found a {young.mother} who was looking [behind every stone|this way and that].",
    "When they came closer, there was the mother {young.mother}, {young.home}, too worried to stand still.",
    "Suddenly the {young.noun} began to run. {young.home} stood the mother {young.mother}!",
)
_MOTHER_HAPPY = (
    "The {young.noun} ran so fast that it [fell over its own feet|nearly rolled].",
    "Mother and {young.noun} [held each other|put their heads together] for a long time.",
    "The {young.noun} cuddled up to its mother and [closed its eyes|talked and talked].",
)
_MOTHER_LINES = (
    "Thank you for bringing my little one home",
    "You have a good heart, {hero}",
    "You are welcome here on any day of the year",
    "I will never forget what you did",
)
_VISITS = (
    "After that, {hero} came to see the {young.noun} every week, and it grew and grew.",
    "{hero} waved until the two were out of sight. Then {he} ran home to [hug|tell] {elder}.",
    "{hero} [walked|went|ran] home alone, but {he} did not feel [alone|lonely|sad] at all.",
    "From then on, whenever {hero} passed by, the {young.noun} came running to say hello.",
    "When {hero} came home, {he} gave {elder} a long, long hug.",
)


def lost_little_one(story: Story) -> None:
    story.put(young=story.pick(_LITTLE_ONES))
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_HEARS)
    story.say(_FINDS)
    story.put(little_one=story.fill("the {young.noun}"), mother=story.fill("the {young.mother}"))
    story.speak("little_one", _LITTLE_CRIES, SADLY)
    if story.happens(0.6):
        story.speak("hero", (f"{story.pick(_COMFORTS)}. {story.pick(_ASKS_HOME)}?",), KINDLY)
        story.speak("little_one", ("{young.clue}",), REPLY)
    else:
        story.speak("hero", _COMFORTS, KINDLY)
    story.paragraph()
    story.say(_WALKS)
    if story.happens(0.5):
        story.say(_WRONG)
    else:
        scenes.meet_helper(story)
        story.speak("helper", _HELPER_SAW, ADVISE)
    story.paragraph(chance=0.5)
    story.say(_REUNITED)
    story.say(_MOTHER_HAPPY, chance=0.8)
    story.speak("mother", _MOTHER_LINES, KINDLY)
    story.say(_VISITS)
    scenes.close_tale(story, chance=0.3)
