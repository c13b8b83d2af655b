"""Plot: two friends are caught in a storm and wait together until it ends."""

from __future__ import annotations

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import CRY, GLADLY, Story

_STORM_SIGNS = (
    "{one_day}, {hero} and {friend} were playing {place.at} when the sky turned [black|dark gray|as dark as night].",
    "{one_day}, the two friends were {place.at}. The birds stopped singing, and the air was very [still|cold|heavy].",
    "{one_day}, {hero} and {friend} had just unpacked their picnic {place.at} when the wind began to blow.",
    "{one_day}, {friend} pointed at the sky. Over {near_the} stood a wall of dark clouds.",
)
_STORM_LINES = (
    "A storm is coming",
    "Run! It is going to rain",
    "We have to find a dry place",
    "Look at those clouds",
    "Quick, come with me",
)
_STORM_BREAKS = (
    "Then the rain came down, [all of it at once|as if someone had turned over a bucket|harder and harder].",
    "Lightning [split|lit up] the sky, and the thunder made the [ground|trees|very stones] shake.",
    "The wind pulled at their [ears|hats] and threw [leaves|sand|rain] into their faces.",
    "Soon the [path|road] was a stream, and the stream was a river.",
)
_SHELTERS = (
    "They ran [side by side|with their heads down] and crawled under [an old cart|a wide rock|a fallen tree].",
    "They found [a small cave|an empty house|a dry barn] just in time and pulled each other inside.",
    "They tried to [run home|cross the field|get to the village], but the [wind|rain] pushed them back. So they hid in "
    "[a hollow tree|an old shed].",
)
_STORM_GUESTS = (
    "Someone was there already. It was {helper.a}, wet from nose to toes.",
    "A [tiny bird|wet mouse|little rabbit] came in after them, and they made room.",
    "Outside, a small voice cried for help. {hero} ran out and came back with a wet [kitten|chick|lamb] in {his} arms.",
    "In the corner sat a [hen|mother cat] with [three|four|five] little ones, and all of them were shaking.",
)
_STORM_WAITS = (
    "They sat close together and shared {food.part}.",
    "To keep warm, they told [stories|jokes], each one [longer|louder] than the last.",
    "{friend} was afraid of the thunder, so {hero} sang the [loudest|longest|silliest] song {he} knew.",
    "{hero} was afraid, and {friend} [held on to {him}|told {him} jokes|sang to {him}] until the worst was over.",
    "They counted [out loud|the time] between the flash and the bang, and each time it was [longer|a little longer].",
    "They made a game of it. After every [thunder|bang|flash], they [roared|shouted|sang] right back.",
)
_STORM_ENDS = (
    "Little by little, the [rain grew softer|thunder went away|sky turned blue], and then it [stopped|was over].",
    "At last the clouds [broke open|moved on], and [one thin ray of sun|a little bit of blue] came through.",
    "[Suddenly|After a while|Then] it was so quiet that they could hear [the drops fall from the leaves|a bird sing "
    "far away|each other breathe].",
)
_AFTER_STORMS = (
    "A rainbow stood over {near_the}, and everything smelled new.",
    "The whole world was [washed and shining|clean and green], and there was a [snail|drop of light] on every leaf.",
    "A [big|very old] tree had fallen across the path, right where they had [stood|been playing] before.",
    "Every puddle had a piece of [blue sky|rainbow|sun] in it.",
)
_AFTER_STORM_DEEDS = (
    "The next day they helped to mend the [roofs|walls|bridge], and everyone [in the village |]had a story about the "
    "storm.",
    "They put a fallen nest back into its tree, and the mother bird [sang for them|looked at them for a long time].",
    "They took the [longest|wettest] way home, through every single puddle.",
    "{elder} came running and hugged them both at the same time.",
)
_AFTER_STORM_LINES = (
    "I am not afraid when you are with me",
    "That was the best storm I ever had",
    "Next time we will bring a bigger cake",
    "You are as brave as a bear",
    "I am wet from head to toe, and I do not mind",
)


def storm(story: Story) -> None:
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_STORM_SIGNS)
    story.speak("friend" if story.happens(0.5) else "hero", _STORM_LINES, CRY)
    story.say(_STORM_BREAKS)
    scenes.feel_scared(story, chance=0.5)
    story.paragraph(chance=0.7)
    story.say(_SHELTERS)
    story.say(_STORM_GUESTS, chance=0.55)
    for wait in story.several(_STORM_WAITS, 2 if story.happens(0.4) else 1):
        story.say((wait,))
    story.paragraph(chance=0.7)
    story.say(_STORM_ENDS)
    story.say(_AFTER_STORMS)
    story.speak("friend", _AFTER_STORM_LINES, GLADLY, chance=0.7)
    story.say(_AFTER_STORM_DEEDS)
    scenes.close_tale(story, chance=0.35)
