"""Plot: everyone acts strangely on the hero's birthday, until the surprise."""

from __future__ import annotations

from alm.corpus.sources.tales import scenes, words
from alm.corpus.sources.tales.story import GLADLY, REPLY, SADLY, Story

_SURPRISE_DAYS = (
    "It was {hero}'s birthday, and nobody [said a word about it|had said so|seemed to know].",
    "One [{weather}|{season}] morning {hero} woke up early, because it was {his} birthday. But the house was empty.",
    "For [weeks|a long time] {hero} had counted the days to {his} birthday. Now it was here, and it felt like [any "
    "other day|nothing at all].",
    "{one_day}, {hero} was sad. It was {his} birthday, and [it seemed that everyone had forgotten|not one of them had "
    "come to see {him}].",
)
_GOES_ASKING = (
    "{he} went to {friend}'s home. But {friend} [stood in|shut|looked around] the door and did not let {him} in.",
    "{way_1} {he} met {friend}, who was in a great hurry.",
    "{he} ran to {friend}. {friend} had [flour|paint|straw] on {friend.his} [nose|ears] and looked the other way.",
    "{friend} was whispering with {helper.a}. When {hero} came near, they stopped.",
)
_EXCUSES = (
    "I have no time today. I have to wash my socks",
    "Not now. Come back when the sun is down",
    "I cannot play. I am busy, very busy",
    "I am looking for a lost sock, and I have to be alone",
    "I have to go home and feed my fish",
)
_EVERYONE_ODD = (
    "{elder} was strange as well, and shut the kitchen door when {hero} came in.",
    "Everybody smiled in a strange way and walked a little faster.",
    "Even the dog would not look at {him}.",
    "Somewhere people were laughing, but when {he} came around the corner, it was quiet.",
)
_SURPRISE_WALKS = (
    "So {hero} went to {place.the} all alone. {sight}, but {he} hardly noticed.",
    "{hero} walked {way_2} and {way_3} and back, and kicked a stone in front of {him}.",
    "{hero} sat down {spot_1} {place.at} and sang the birthday song to {himself}, very softly.",
)
_SURPRISE_THOUGHTS = (
    "Nobody thinks of me",
    "I will be a year older, and nobody will know",
    "Perhaps they do not like me any more",
    "It is only a day. It does not matter",
)
_COMES_HOME = (
    "When it grew dark, {hero} [went|walked slowly] home. There was no [light in any window|sound in the house]. {he} "
    "opened the door.",
    "In the evening a bell rang, and {hero} followed the sound {way_1}. Behind the [last|old|big] tree it was full of "
    "[lights|lanterns|people].",
    "[At sunset|When it was almost dark] {friend} came at last and pulled {him} along. {hero} had to [close {his} "
    "eyes|run to keep up].",
)
_SURPRISE_SHOUTS = (
    '"Surprise!" cried a hundred voices.',
    '"Surprise!" they all shouted.',
    '"Surprise!" cried {friend}, and [all the others|everyone {he} knew|half of the village] came out of the dark.',
)
_PARTY = (
    "There were lanterns in the trees and {food.a} with candles on it.",
    "There stood {elder}, and {friend}, and everyone {he} knew, and in the middle was {food.a} as big as a wheel.",
    "They had hung up paper stars, and on the table stood {food.a}, and everyone was there, even the "
    "[baker|miller|postman].",
    "The [baker|miller|postman] played the drum, {elder} cut up {food.a}, and there was a place for {hero} at the head "
    "of the table.",
)
_SURPRISE_TRUTH = (
    "It was so hard not to tell you",
    "We were afraid that you would find out",
    "I never had to wash my socks at all",
    "Did you really think that we forgot?",
    "I wanted to tell you ten times, and I bit my tongue",
)
_SURPRISE_ENDS = (
    "They danced until the candles were small.",
    "{hero} laughed, and cried a little, and then {he} ate [three pieces of everything|more than ever before].",
    "Under a blanket was {thing.a}, and it was for {him}.",
    "It was the worst birthday until supper, and after that it was the best.",
    "After that, when [people|friends] had secrets, {hero} only smiled and waited.",
)


def surprise(story: Story) -> None:
    scenes.choose_thing(story)
    story.put(food=story.pick(words.CAKES))
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_SURPRISE_DAYS)
    story.say(_GOES_ASKING)
    story.speak("friend", _EXCUSES, REPLY)
    story.say(_EVERYONE_ODD, chance=0.7)
    story.paragraph(chance=0.6)
    story.say(_SURPRISE_WALKS)
    story.speak("hero", _SURPRISE_THOUGHTS, SADLY, chance=0.7)
    scenes.feel_sad(story, chance=0.6)
    story.paragraph(chance=0.7)
    story.say(_COMES_HOME)
    story.say(_SURPRISE_SHOUTS)
    story.say(_PARTY)
    story.speak("friend", _SURPRISE_TRUTH, GLADLY)
    scenes.feel_glad(story, chance=0.4)
    story.say(_SURPRISE_ENDS)
    scenes.close_tale(story, chance=0.15)
