"""Plot: the hero is hungry but shares, and is repaid."""

from __future__ import annotations

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import KINDLY, SADLY, Mention, Story

_HAS_FOOD = (
    "{one_day}, {elder} gave {him} {food.a} to take along.",
    "{one_day}, {hero} made {food.a}, all alone, for the very first time.",
    "{one_day}, {hero} spent {his} only coin {place.at} and bought {food.a}.",
    "{one_day}, {hero} won {food.a} at the fair, and it was the finest that {he} had ever seen.",
)
_WANTS_ALL = (
    "{he} had not eaten since the day before, and {his} tummy [made a noise|sounded like a bear].",
    "It smelled so good that {he} wanted to eat [it all at once|all of it, right there|every bit of it alone].",
    "{he} found a quiet spot {place.at}, where nobody would ask for any.",
    "{he} carried it {way_1}, and with every step it smelled better.",
)
_HUNGRY = (
    ("a thin kitten", "the kitten"),
    ("a hungry crow", "the crow"),
    ("an old sailor", "the sailor"),
    ("a little ant", "the ant"),
    ("a lost puppy", "the puppy"),
    ("a shy deer", "the deer"),
    ("two small sparrows", "the sparrows"),
    ("a lonely goat", "the goat"),
    ("a thin old woman", "the old woman"),
    ("a cold mouse", "the mouse"),
    ("a ragged traveler", "the traveler"),
    ("an old toad", "the toad"),
)
_FIRST_GUEST = (
    "{hero} was just about to take a bite when {guest.a} came [out of the grass|up the path|around the corner].",
    "Then {he} saw {guest.a}, looking at {food.the} with big eyes.",
    "Before the first bite, {he} heard a [sigh|small noise|little cough]. There [sat|stood] {guest.a}.",
)
_GUEST_LINES = (
    "I have not eaten all day",
    "That smells like my mother's kitchen",
    "Could you spare a little?",
    "Do not mind me. I am only looking",
    "I used to have a whole one, long ago",
)
_SHARES = (
    "{hero} looked at {food.the}, and then {he} broke it in two.",
    "{hero} wanted to say no. But {he} said yes.",
    "It was not easy. Still, {hero} held out a [big|nice|warm] piece.",
    "{hero} made room on the [stone|log|grass] and shared.",
)
_SHARE_LINES = (
    "Half for you and half for me",
    "Take some. There is enough for two",
    "Sit down and eat with me",
    "It is better when you are not alone",
)
_SECOND_GUEST = (
    "Then along came {guest_2.a}, hungry as well. The piece got smaller again.",
    "But {he} had not gone far when {he} met {guest_2.a}. {hero} [sighed|looked at the sky], and smiled, and shared "
    "once more.",
    "Soon {guest_2.a} came, too, because good smells go far. There was a bit for everyone.",
)
_LITTLE_LEFT = (
    "In the end, only [a few|three|seven] crumbs were left for {hero}.",
    "What was left would not have filled a [mouse|spoon|very small bird].",
    "{hero} licked {his} {hero.hands} and walked home, still a little hungry.",
    "At last {hero} ate what was left, [very slowly, to make it last|and it was not much|crumb by crumb].",
)
_RETURNS = (
    "[That evening|Before bedtime|Late that day] there was a knock at the door. There stood {guest.the} with [a basket "
    "of plums|a pot of honey|a bag "
    "of nuts], and behind came all the others.",
    "The next day {hero} found [a heap of nuts|a bowl of berries|a comb of honey] on the step. Nobody had to [tell "
    "{him} who "
    "it was from|say where it came from].",
    "In the winter, when {hero} had nothing left, {guest.the} came through the snow with {food.a}, just as big as the "
    "first one.",
    "A week later {hero} lost the way in the woods, and it was {guest.the} who found {him} and brought {him} home for "
    "supper.",
)
_SHARED_ENDS = (
    "They ate and sang until the stars came out.",
    "It was the best meal that {hero} ever had, and there was enough for everyone.",
    "Half of [something|a cake|an apple] with a friend is more than all of it alone, {hero} thought.",
    "And from that day on, {hero} always cut one piece too many, just in case.",
    "Nobody went to bed hungry that night.",
)


def shared_food(story: Story) -> None:
    guests = story.several(_HUNGRY, 2)
    story.put(guest=Mention(*guests[0]), guest_2=Mention(*guests[1]), other=guests[0][1])
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_HAS_FOOD)
    story.say(_WANTS_ALL)
    story.paragraph(chance=0.5)
    story.say(_FIRST_GUEST)
    story.speak("other", _GUEST_LINES, SADLY, chance=0.8)
    story.say(_SHARES)
    story.speak("hero", _SHARE_LINES, KINDLY, chance=0.8)
    story.say(_SECOND_GUEST, chance=0.65)
    story.say(_LITTLE_LEFT)
    story.paragraph(chance=0.8)
    story.say(_RETURNS)
    scenes.feel_glad(story, chance=0.4)
    story.say(_SHARED_ENDS)
    scenes.close_tale(story, chance=0.2)
