"""Plot: the hero hides too well, feels forgotten and is glad to be found."""

from __future__ import annotations

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import CRY, GLADLY, SADLY, Story

_GAME_BEGINS = (
    "{one_day}, {hero} and {friend} played hide and seek {place.at} with all the others.",
    "{one_day}, {friend} wanted to play hide and seek {place.at}.",
    "{one_day}, it was {friend}'s turn to count, and {hero} ran to hide.",
)
_GAME_COUNTS = (
    "One, two, three, I am coming",
    "Ready or not, here I come",
    "I will find all of you",
    "You cannot hide from me",
)
_HIDES = (
    "{hero} looked {spot_1}, but somebody was there already. {spot_2} was too easy. So {he} hid {spot_3}.",
    "{he} wanted the [best|smallest|darkest] place of all. At last {he} found it, {spot_3}.",
    "{hero} made {himself} as small as {he} could and hid {spot_3}.",
    "This time {he} [would not|did not want to] be the first to be found. {he} lay down {spot_3} and did not move.",
)
_WAITS_HIDDEN = (
    "{he} heard steps come close and go away again. {he} pressed both {hero.hands} over {his} mouth.",
    "One by one the others were found. {he} could hear them [laugh|run|call].",
    "[A beetle|An ant|A snail] walked over {his} [nose|foot|ear], and still {he} did not move.",
    "It was the best place in the world. It was also rather [wet|dark|cold].",
)
_FORGOTTEN = (
    "But nobody came. It grew [quiet|cold], and the shadows grew [long|dark].",
    "After a while {he} heard nothing [at all|but the wind], and {he} fell asleep.",
    "{he} waited and waited. Had they all gone home?",
    "The sun went down. What good was the best place if nobody [ever found it|came to look]?",
)
_FORGOTTEN_LINES = (
    "Have they forgotten me?",
    "I am too good at this",
    "Hello? Is anybody there?",
    "I want to be found now",
)
_SEARCHES = (
    "Then {he} heard {friend} calling {his} name, again and again. The voice was [full of worry|small and tired|close "
    "to tears].",
    "[Far away|Between the trees] there were [lanterns|lights], and many voices, and all of them called for {hero}.",
    "They had not gone home. {friend} had looked in every corner, [twice|three times|ten times], and would not [go to "
    "supper|give up|go home].",
)
_COMES_OUT = (
    "{hero} jumped up so fast that {he} had leaves [in {his} ears|on {his} head].",
    "{hero} crept out, [cold and wet|a little sleepy], and waved both arms.",
    "{hero} [sneezed|coughed|called back], and that was the end of the game.",
    "{hero} [ran|{hero.ran}] toward the voice [as fast as {he} could|without stopping once].",
)
_FOUND_YOU = (
    "There you are! I was so afraid",
    "You won! Please never do that again",
    "I would have looked all night",
    "I found you, and I will not let go",
)
_GAME_ENDS = (
    "It is [fun|good] to hide, {hero} thought, but [the best part is|it is even better] to be found.",
    "{hero} had won the game, but it was the hug that {he} remembered.",
    "They still talk about that hiding place, and nobody has ever found it.",
    "The next time, {hero} hid where one [foot|ear|toe] stuck out, just to be sure.",
    "On the way home they [stayed close together|sang out loud|counted each other twice], so that nobody could get "
    "lost.",
)


def hide_and_seek(story: Story) -> None:
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_GAME_BEGINS)
    story.speak("friend", _GAME_COUNTS, CRY, chance=0.8)
    story.say(_HIDES)
    story.say(_WAITS_HIDDEN)
    story.paragraph(chance=0.6)
    story.say(_FORGOTTEN)
    scenes.feel_lonely(story, chance=0.3)
    story.speak("hero", _FORGOTTEN_LINES, SADLY)
    story.paragraph(chance=0.6)
    story.say(_SEARCHES)
    story.say(_COMES_OUT)
    story.speak("friend", _FOUND_YOU, GLADLY)
    scenes.feel_glad(story, chance=0.4)
    story.say(_GAME_ENDS)
    scenes.close_tale(story, chance=0.25)
