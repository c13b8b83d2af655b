"""Tales of what was lost and found again: a thing, a little one, the way home."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes, words
from alm.corpus.sources.tales.story import ADVISE, ASK, GLADLY_CRY, KINDLY, REPLY, SADLY, WHISPER, WONDER, Story

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
    "So {hero} went home without the {thing.noun}, and {he} was [not sad|happy] at all. It was good to know who had it.",
    "{he} came to see it every day, and when [spring|winter|the new moon] came, {he} found the {thing.noun} on {his} own "
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
    """A treasure is lost and found, and sometimes somebody smaller needs it more."""
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


@dataclass(frozen=True)
class _LittleOne:
    """A young animal: the sound it makes, its mother, where she is, and a line by which that place is known."""

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
)  # fmt: skip

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
    "We will find her together",
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
    """A young animal has lost its mother, and the hero brings it back."""
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


_SETS_OUT = (
    "{one_day}, {hero} went out to pick {fruit} for {elder}.",
    "{one_day}, {elder} sent {hero} out for a basket of {fruit}.",
    "{one_day}, {hero} wanted to find the best {fruit} of all, the ones that grew behind {place.the}.",
    "{one_day}, {hero} took a basket and went to look for {fruit}.",
)
_WARNS = ("Stay on the path", "Be home before dark", "Do not go too far", "Keep the church tower in sight")
_STRAYS = (
    "But {he} saw a [blue butterfly|white bird|golden beetle] and followed it {way_1}, {way_2}, and on and on.",
    "The [best|biggest] ones [always|all] seemed to [be|grow] a little farther on. {he} went {way_1}, and then a little farther.",
    "{he} thought about [supper|{hobby}|the fair], and {his} feet went where they liked.",
    "There was a [path|gate|stream] that {he} had never seen before, and {he} only wanted to [know where it went|look for a moment].",
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
    "{he} ran [up and down|one way and then another|from tree to tree], until {his} basket was [half empty|empty|full of leaves].",
)


@dataclass(frozen=True)
class _WayHome:
    """How somebody finds home again: what is noticed, and where it leads."""

    idea: str
    walk: str


_WAYS_HOME = (
    _WayHome("Then {he} heard water. {elder} had once told {him} that a stream always knows the way to the village.",
             "{he} followed the stream, step by step, over stones and under branches."),
    _WayHome("Then {he} heard the church bell, far away. One, two, three, four, five.",
             "{he} walked toward the sound and stopped to listen at every ring."),
    _WayHome("{he} climbed a tall tree, and from the top {he} saw a thin line of smoke.",
             "{he} kept the smoke in front of {him} and did not look left or right."),
    _WayHome("The stars came out, and {hero} found the brightest one. It always stood over the roof at home.",
             "{he} walked with {his} nose up, right under the star."),
    _WayHome("Then {he} saw something on the ground. It was one of the {fruit} that {he} had dropped!",
             "There was another, and another, and {he} followed them all the way back."),
    _WayHome("Then {he} smelled something good. It was {food.a}, and {he} knew that smell!",
             "{he} followed {his} nose {way_3}, faster and faster."),
    _WayHome("Then a [white butterfly|small bird] came and flew ahead, stopped, and flew ahead again.",
             "{hero} followed it {way_3} and never lost sight of it."),
)  # fmt: skip

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
    """The hero strays from the path, is lost, notices something and comes home."""
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
