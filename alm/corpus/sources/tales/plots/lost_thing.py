"""Plot: a treasure is lost and found, and sometimes a smaller one needs it more."""

from __future__ import annotations

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import ADVISE, ASK, GLADLY_CRY, SADLY, WHISPER, WONDER, Story

_TREASURED = (
    "{his} best thing in the [whole|wide] world was {thing.a}. {he} {habit}.",
    "[More than anything|Most of all] {he} loved {his} {thing}. {he} {habit}.",
    "{he} had {thing.a} that once belonged to {elder}. {he} {habit}.",
    "One winter {elder} gave {him} {thing.a}, and {he} {habit}.",
    "{he} had {thing.a} from the [spring|summer|village] fair, and {he} {habit}.",
    "{hero} owned only one treasure, and that was {thing.a}. {he} {habit}.",
)
_GONE = (
    "{one_day}, {hero} came home from {place.the} and [saw|found] that {thing.the} was gone.",
    "{one_day}, after a long game {place.at}, {hero} reached for {thing.the}. It was [gone|not there].",
    "{one_day}, {hero} took {thing.the} to {place.the}. {sight}, and {he} forgot everything else. When it was time "
    "to go, the {thing.noun} was [gone|not where it had been].",
    "{one_day}, {hero} was on the way home from {place.the} when {he} felt that something was missing. It was "
    "{thing.the}!",
    "{one_day}, {hero} played {place.at} until {his} legs were tired. Then {he} looked for {thing.the}, but it was "
    "not where {he} had left it.",
)
_MISSING_LINES = (
    "Where is my {thing.noun}",
    "Has anyone seen my {thing.noun}",
    "Where can it be",
    "Where did I put it",
    "What have I done with my {thing.noun}",
)
_ADVICE_LINES = (
    "Go back the way you came",
    "Close your eyes and think. Where did you have it last?",
    "A lost thing is always somewhere",
    "Look low, then look high, then look again",
    "Let us go and look together",
)
_FIRST_LOOKS = (
    "{he} [{hero.ran}|went] back to {place.the} and looked {spot_1}. There was nothing there but {junk_1}.",
    "First {he} looked {spot_1}, but {he} found only {junk_1}.",
    "Back {place.at}, {he} looked {spot_1} and found {junk_1}, but no {thing.noun}.",
    "{he} went back and got down on {his} knees to look {spot_1}. All {he} saw was {junk_1}.",
    "{hero} {hero.ran} {way_1} and back to {place.the}. {he} looked {spot_1}. No {thing.noun}.",
)
_SECOND_LOOKS = (
    "Then {he} looked {spot_2}, where there was {junk_2}.",
    "{spot_2} {he} found {junk_2}, but that was no help at all.",
    "{he} looked {spot_2}, too. [Still nothing|Nothing at all].",
    "{he} tried {spot_2}, but all {he} got was [a dirty nose|a cold wet foot|a thorn in one foot].",
)
_HELPER_ASKS = ("What are you looking for", "Why do you look so sad", "Have you lost something", "What is the matter")
_TELLS_HELPER = (
    "I lost my {thing}, and I have looked everywhere",
    "My {thing} is gone",
    "I cannot find my {thing.noun}",
    "I am looking for {thing.a}",
)
_HELPER_KNOWS = (
    "I saw something {thing.look} {spot_3}",
    "Go and look {spot_3}. Many lost things end up there",
    "I nearly tripped over a {thing.noun} {spot_3}",
    "The wind takes everything to one place. Look {spot_3}",
)
_REMEMBERS = (
    "Then {hero} sat still and thought. {he} had stopped to rest {spot_3}.",
    "{hero} closed {his} eyes and walked through the whole day again. At last {he} remembered a place {spot_3}.",
    "All at once {he} remembered. There had been a bee, and {he} had jumped out of the way, right {spot_3}.",
    "Just when {he} wanted to give up, {he} saw something {thing.look} {spot_3}.",
)
_FOUND = (
    "And there it was! {spot_3} lay {thing.the}, [a little wet|a little dusty|as good as ever|with a leaf on top].",
    "{he} {hero.ran} over and looked {spot_3}, and there was the {thing.noun}, waiting for {him}.",
    "{he} {hero.ran} over to look. {spot_3}, {thing.the} was [waiting|dry and safe|half under a big leaf].",
    "There, {spot_3}, lay the {thing.noun}, just as {he} had left it.",
)
_FOUND_LINES = (
    "There you are",
    "I found you",
    "My {thing.noun}! My own {thing.noun}",
    "I thought you were gone forever",
)
_NEST = (
    "But something moved inside. [A tiny mouse|A mother mouse with five little ones|A baby bird] was asleep in "
    "the {thing.noun}.",
    "But {thing.the} was not empty. A [small|sleepy] mouse had made a bed in it.",
)
_NEST_LINES = (
    "You may keep it until you find a better bed",
    "Sleep well, little one. I can wait until tomorrow",
    "You need it more than I do",
    "It looks better on you than on me",
)
_NEST_ENDS = (
    "The next day {he} came back with a box full of [wool|soft hay|dry moss]. The little one moved in at once, and "
    "{hero} took the {thing.noun} home.",
    "So {hero} went home without the {thing.noun}, and {he} was [not sad|happy] at all. It was good to know who had "
    "it.",
    "{he} came to see it every day, and when [spring|winter|the new moon] came, {he} found the {thing.noun} on {his} "
    "own "
    "step, clean and warm.",
)
_KEPT_SAFE = (
    "{he} held it tight all the way home.",
    "From that day on, {he} [always knew|never forgot] where {his} {thing.noun} was.",
    "That evening {he} tied a little bell to the {thing.noun}, so that it could never hide again.",
    "{he} thanked the [sun|wind|whole world] and carried {thing.the} home [with both {hero.hands}|very slowly].",
    "After that, the {thing.noun} had its own [hook|place|corner] by the door, and {hero} put it there each night.",
)


def lost_thing(story: Story) -> None:
    kept = scenes.choose_thing(story)
    scenes.open_tale(story)
    story.say(_TREASURED)
    story.paragraph()
    story.say(_GONE)
    story.speak("hero", _MISSING_LINES, WONDER, chance=0.8)
    scenes.feel_sad(story)
    story.speak("elder", _ADVICE_LINES, ADVISE, chance=0.35)
    story.paragraph(chance=0.7)
    story.say(_FIRST_LOOKS)
    story.say(_SECOND_LOOKS, chance=0.8)
    _learn_where(story)
    story.paragraph(chance=0.8)
    story.say(_FOUND)
    _take_back(story, is_nest=kept.nest and story.happens(0.6))
    scenes.close_tale(story)


def _learn_where(story: Story) -> None:
    if story.happens(0.45):
        story.say(_REMEMBERS)
        return
    scenes.meet_helper(story)
    story.speak("helper", _HELPER_ASKS, ASK)
    story.speak("hero", _TELLS_HELPER, SADLY)
    story.speak("helper", _HELPER_KNOWS, ADVISE)


def _take_back(story: Story, *, is_nest: bool) -> None:
    if is_nest:
        story.say(_NEST)
        story.speak("hero", _NEST_LINES, WHISPER)
        story.say(_NEST_ENDS)
        return
    story.speak("hero", _FOUND_LINES, GLADLY_CRY, chance=0.8)
    scenes.feel_glad(story, chance=0.5)
    story.say(_KEPT_SAFE)
