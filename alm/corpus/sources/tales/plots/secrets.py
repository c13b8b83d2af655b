"""Tales of secrets: a surprise nobody would talk about, and a map that leads to a treasure."""

from __future__ import annotations

from alm.corpus.sources.tales import scenes, words
from alm.corpus.sources.tales.story import GLADLY, GLADLY_CRY, REPLY, SADLY, SAY, Shapes, Story

_SURPRISE_DAYS = (
    "It was {hero}'s birthday, and nobody [said a word about it|had said so|seemed to know].",
    "One [{weather}|{season}] morning {hero} woke up early, because it was {his} birthday. But the house was empty.",
    "For [weeks|a long time] {hero} had counted the days to {his} birthday. Now it was here, and it felt like [any other day|nothing at all].",
    "{one_day}, {hero} was sad. It was {his} birthday, and [it seemed that everyone had forgotten|not one of them had come to see {him}].",
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
    "When it grew dark, {hero} [went|walked slowly] home. There was no [light in any window|sound in the house]. {he} opened the door.",
    "In the evening a bell rang, and {hero} followed the sound {way_1}. Behind the [last|old|big] tree it was full of [lights|lanterns|people].",
    "[At sunset|When it was almost dark] {friend} came at last and pulled {him} along. {hero} had to [close {his} eyes|run to keep up].",
)
_SURPRISE_SHOUTS = ('"Surprise!" cried a hundred voices.', '"Surprise!" they all shouted.', '"Surprise!" cried {friend}, and '
                    '[all the others|everyone {he} knew|half of the village] came out of the dark.')  # fmt: skip
_PARTY = (
    "There were lanterns in the trees and {food.a} with candles on it.",
    "There stood {elder}, and {friend}, and everyone {he} knew, and in the middle was {food.a} as big as a wheel.",
    "They had hung up paper stars, and on the table stood {food.a}, and everyone was there, even the [baker|miller|postman].",
    "The [baker|miller|postman] played the drum, {elder} cut up {food.a}, and there was a place for {hero} at the head of the table.",
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
    """Everyone is strange on the hero's birthday, until the surprise."""
    scenes.choose_thing(story)
    story.put(food=story.pick(words.CAKES))
    scenes.open_tale(story)
    scenes.introduce_friend(story)
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


_MAPS = (
    "{one_day}, {hero} found an old map [in a bottle|under the floor|between the pages of a book|inside a clock]. There was a "
    "red cross on it.",
    "{one_day}, {hero} pulled a loose brick out of the wall. Behind it lay a map.",
    "{one_day}, {friend}, {friend.a}, came with a map that [a crow had dropped|had been inside an old hat].",
    "{one_day}, {elder} gave {him} an old coat. In the pocket was a map with a red cross.",
)
_MAP_LINES = ("That must be a treasure", "Let us follow it", "The cross is not far from here", "What a strange map")
_MAP_FRIENDS = (
    "{he} showed it to {friend}, {friend.a}, and they packed {food.a} and a spade.",
    "Alone it was no fun, so {he} took along {friend}, {friend.a}.",
    "{friend}, {friend.a}, was good at maps, and so they went together.",
)
_FIRST_STEPS = (
    "First they had to go {way_1} and count [a hundred|twelve|twenty] steps.",
    "The line on the map went {way_1} and {way_2}.",
    "The map led them {way_1} and {way_2}, and then [up a hill|in a circle].",
    "They [walked|ran] {way_1}, {hero} in front with the map and {friend} behind with the spade.",
)
_STEPS = (
    "At the crooked tree they had to turn left, but which tree was not crooked?",
    "On the map was a drawing of a sleeping giant. It was the hill!",
    "They walked in the wrong direction for [an hour|a long time], because {hero} held the map upside down.",
    "{helper.a}, {helper.doing}, knew the place and showed them the way for {food.part}.",
    "There was a riddle on the back. What has teeth but cannot bite? \"A comb,\" said {friend}, and the hill did look like one.",
)
_DIGS = (
    "And there, {spot_1} {place.at}, was a red stone. They began to dig.",
    "The cross was {spot_1} {place.at}. They dug until [the hole was as deep as {hero} was tall|their arms hurt|only their ears could be seen].",
    "{spot_1} {place.at} the ground was soft. {hero} dug, and {friend} pulled out the [stones|roots].",
)
_CLANK = (
    "Then the spade hit something hard. It was a box!",
    "At last there was a sound. Clonk. It was the lid of [a chest|a box|an old pot].",
    "Just when they wanted to [stop|give up|go home], they saw [the corner of a rusty box|a bit of old wood. It was a box].",
)
_TREASURES: tuple[Shapes, ...] = (
    ("There was no gold in it. There was {thing.a} and a letter. \"This is for you. Have fun with it,\" it said.",
     "They took turns with the {thing.noun} and wrote a letter of their own for the next one."),
    ("Inside lay a hundred buttons in every color of the rainbow.",
     "They gave one to everyone in the village, and kept two."),
    ("Inside was a small bag of seeds and nothing else.",
     "They planted them, and by summer there was a garden where there had been only stones."),
    ("In it was a drawing of two friends with a spade, very old. They looked just like {hero} and {friend}.",
     "{elder} laughed and said, \"I wondered if somebody would ever find it. That is me on the left.\""),
    ("It was full of old coins, so black that they looked like buttons.",
     "With them they bought a new bell for the church and {food.a} for everyone."),
    ("It was empty. On the bottom somebody had painted the words, \"The way was the treasure.\"",
     "They thought about it, and they had to say that it had been a very good way."),
    ("Inside was a toy ship, and it was as good as new.",
     "They sailed it {place_water}, and it flew over the water like a swan."),
)  # fmt: skip
_TREASURE_LINES = ("It is better than gold", "I thought it would be gold", "Who put it there?", "We found it! We really found it")
_TREASURE_ENDS = (
    "Then they hid the map [again|in a new place|under a stone], for somebody else to find.",
    "On the way home they were already [drawing|talking about] a map of their own.",
    "{hero} kept the map [over|under] {his} bed and looked at it every night.",
    "And somewhere there is another map, and another cross, and it may be close to you.",
    "They were tired and dirty, and they felt like kings.",
)


def treasure(story: Story) -> None:
    """An old map leads two friends to a treasure that is not gold."""
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
