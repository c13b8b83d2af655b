"""Plot: a newcomer is shy, and the hero finds a way to say hello."""

from __future__ import annotations

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import KINDLY, REPLY, Story

_ARRIVALS = (
    "{one_day}, a cart full of [boxes|pots|straw] stopped in front of the empty house next door, and "
    "{friend.a} climbed down.",
    "{one_day}, there was somebody new {place.at}. It was {friend.a}, sitting alone {spot_1}.",
    "{one_day}, {hero} saw {friend.a} {place.at}. Nobody knew where {friend.he} came from.",
    "{one_day}, a new family came to live {near}. They had {friend.a} with them.",
)
_STRANGE = (
    "The newcomer [wore a coat that was much too big|had a hat with a hole in it|carried a big green bag] and did not "
    "say a word.",
    "The newcomer looked at everyone with big eyes and hid {spot_3}.",
    "The newcomer spoke [so softly|so fast|such strange words] that nobody could understand.",
    "The newcomer drew [lines|stars] in the [dust|sand] with a stick and did not look up.",
)
_OTHERS = (
    "The others ran past and did not stop.",
    'Nobody said "come and play," because nobody had thought of it.',
    "Some of the others laughed, and that made it worse.",
    "{hero} felt shy, too, and walked on. But {he} thought about it all evening.",
)
_FIRST_TRIES = (
    "{hero} [waved|smiled], but the newcomer only looked [away|down|at the ground].",
    "{hero} said hello, but {he} said it so [fast|softly] that it sounded like a [sneeze|mouse].",
    "{hero} rolled [a ball|an apple] across the grass. It rolled back, very [slowly|softly], and that was all.",
    "{hero} told {his} best joke. Nobody laughed.",
)
_GIFTS = (
    "So the next morning {hero} left [{food.part}|a flower|a white stone] {spot_2} and [went|ran] away.",
    "Then {hero} had an idea. {he} left [{food.part}|a red apple|a paper boat] {spot_2}, with a note that said hello.",
)
_ANSWERS = (
    "When {he} came back, [it was gone|nothing was left of it]. In its place lay [a blue feather|a shiny button|a tiny "
    "boat made of bark].",
    "In the evening something [else|new] lay [there|in the same place]. It was [a drawing of a cat|a ring made of "
    "grass|a nut with a face].",
)
_NAME_LINES = (
    "I am {hero}. What is your name?",
    "Hello. My name is {hero}. Do you want to play?",
    "I am {hero}, and I live [right over there|near the mill|behind the hedge]. Who are you?",
)
_NAME_ANSWERS = (
    "My name is {friend}, and I do not know anyone here",
    "I am {friend}. I was afraid that nobody would ask",
    "{friend}. I miss my old home a little",
    "I am {friend}. I thought you would never come back",
)
_TALENTS = (
    "It turned out that {friend} could [whistle like any bird|walk on {friend.his} {friend.hands}|juggle four apples|"
    "sing like an owl|tell stories about the sea].",
    "{friend} knew a game that nobody had ever played, and soon [they were all|everyone was] playing it.",
    "{friend} could [run like the wind|climb like a cat|swim like a fish], and {hero} could [hide like a mouse|think "
    "like a fox|jump like a frog], so they made a [good|perfect] team.",
    "{hero} showed {friend} {place.the}, and {friend} showed {him} how to [skip a stone|make a flute out of grass].",
)
_FRIENDS_NOW = (
    "By evening {hero} could not remember how it had been without {friend}.",
    "From then on, if you saw one of them, the other was never far.",
    "Soon the others came over, one by one, and {friend} was never alone again.",
    "When [the next newcomer came|somebody new came again], {friend} was the first to [say hello|smile|run and meet "
    "them].",
    "The big [shy|sad] eyes were not [shy|sad] any more, and {friend} laughed [louder|longer] than anyone.",
)


def new_friend(story: Story) -> None:
    scenes.open_tale(story, has_friend=False)
    story.paragraph(chance=0.8)
    story.say(_ARRIVALS)
    story.say(_STRANGE)
    story.say(_OTHERS, chance=0.7)
    story.paragraph(chance=0.8)
    story.say(_FIRST_TRIES)
    story.speak(
        "elder",
        (
            "Give it time. Shy birds come when you sit still",
            "A small gift is a kind of hello",
            "It is hard to be new. Try again tomorrow",
        ),
        KINDLY,
        chance=0.5,
    )
    if story.happens(0.7):
        story.say(_GIFTS)
        story.say(_ANSWERS)
        story.paragraph(chance=0.5)
    else:
        story.say(("The next day {hero} tried again, and sat down close by.", "But {hero} did not give up."))
    story.speak("hero", _NAME_LINES, KINDLY)
    story.put(newcomer="the newcomer")
    story.speak("newcomer", _NAME_ANSWERS, REPLY)
    scenes.feel_glad(story, chance=0.3)
    story.say(_TALENTS)
    story.say(_FRIENDS_NOW)
    scenes.close_tale(story, chance=0.2)
