"""Plot: a friend is ill and misses a great day, and the hero brings the day to the bed."""

from __future__ import annotations

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import ADVISE, GLADLY, SADLY, Story

_ILLNESSES = (
    "had a bad cold",
    "had a hot head and cold feet",
    "had hurt {friend.his} foot",
    "had red spots all over",
    "had a fever",
    "had eaten too many green apples",
)
_EVENTS = ("fair", "picnic", "flower show", "parade", "boat race", "puppet show", "harvest dance", "treasure hunt")
_MISSES = (
    "{one_day}, the {event} was about to begin, but {friend} {illness} and had to stay in bed.",
    "{one_day}, everyone was getting ready for the {event}. But {friend} {illness}, and the doctor said to stay in "
    "bed.",
    "On the day of the {event}, {friend} {illness}. {friend.he} could not go.",
    "{hero} and {friend} had talked about the {event} for weeks. But when the day came, {friend} {illness}.",
)
_SICK_LINES = (
    "Go without me",
    "You go, and tell me all about it",
    "I wanted to see it so much",
    "Now I will miss everything",
)
_WRONG_CHEERS = (
    "First {hero} brought a drum and played a song. It made {friend}'s head hurt.",
    "First {he} brought a big bunch of flowers, and {friend} sneezed seven times.",
    "First {he} tried to be funny and fell over the chair. The soup was everywhere.",
    "First {he} sang all the songs {he} knew. Next door, a dog began to cry.",
    "First {hero} sat by the bed and sighed, and that made both of them sadder.",
)
_IDEAS = (
    "Then {hero} had an idea. If {friend} could not go to the {event}, the {event} would have to come to {friend}.",
    "{hero} went to the {event} alone, but all the time {he} thought of the little room with the closed window.",
    "{hero} did not want to [go|have fun] alone. {he} [sat on the step|lay in the grass|walked up and down] and "
    "thought, and then {he} ran to find {elder}.",
)
_CHEERS = (
    "{he} filled a basket with [a paper flag|a red balloon|a bag of nuts|a bell], {food.part} and a leaf from "
    "{place.the}.",
    "{he} asked everyone to come by, and they [danced|walked] past {friend}'s window, one after another.",
    "{he} drew the whole {event} on a long piece of paper, with every [flag|hat|dog] in it.",
    "{he} made puppets out of socks and put on a show at the end of the bed.",
    "{he} tied a string from {friend}'s window to {his} own, and they wrote each other letters all day.",
    "{he} stood [under the window|at the end of the bed] and told the whole story, and {he} played [every part|all of "
    "it, even the dog,] {himself}.",
)
_LAUGHS = (
    "{friend} [laughed|smiled|sat up] for the first time in [days|a week].",
    "{friend} sat up in bed and clapped.",
    "{friend}'s [cheeks|ears] turned pink, and it was not from [the fever|being ill].",
    "{friend} forgot to feel ill until it was dark.",
)
_FRIEND_THANKS = (
    "This is better than the real {event}",
    "I did not miss anything after all",
    "You are better than any doctor",
    "Now I feel well already",
)
_WELL = (
    "[A few days later|The next week] {friend} was well again, and then it was {hero} who had a cold. {friend} came "
    "with "
    "[soup|{food.part}] and [sock puppets|a bag of jokes|paper stars].",
    "By the end of the week {friend} was up, and the two ran {way_1} as if they had never been still.",
    "When {friend} was well, they kept [the basket|the pictures|one of the letters] to remember that day.",
    "Soon {friend} was well, and they had a {event} of their own {place.at}.",
)


def sick_friend(story: Story) -> None:
    story.put(illness=story.fill(story.pick(_ILLNESSES)), event=story.pick(_EVENTS))
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_MISSES)
    story.speak("friend", _SICK_LINES, SADLY)
    scenes.feel_sad(story, chance=0.4)
    story.paragraph(chance=0.5)
    story.say(_WRONG_CHEERS, chance=0.6)
    story.speak(
        "elder",
        (
            "What would you like if you were ill?",
            "Try again, but more softly",
            "You know {friend} best. You will think of something",
        ),
        ADVISE,
        chance=0.4,
    )
    story.say(_IDEAS)
    for cheer in story.several(_CHEERS, 2 if story.happens(0.4) else 1):
        story.say((cheer,))
    story.paragraph(chance=0.6)
    story.say(_LAUGHS)
    story.speak("friend", _FRIEND_THANKS, GLADLY)
    story.say(_WELL)
    scenes.close_tale(story, chance=0.2)
