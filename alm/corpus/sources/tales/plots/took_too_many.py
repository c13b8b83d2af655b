"""Plot: the hero wants too much, loses it all and learns to share."""

from __future__ import annotations

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import CROSSLY, SADLY, Mention, Story

_PLENTY = (
    "{one_day}, {hero} found a place {place.at} that was full of {fruit}. Nobody else knew about it.",
    "{one_day}, {helper.a} told {hero} to take as many {fruit} as {he} needed, but no more.",
    "{one_day}, {hero} and {friend} went to pick {fruit}. There were [more|many more] than they had ever "
    "[seen|dreamed of|eaten].",
    "{one_day}, after the great wind, the ground {place.at} was covered with {fruit}.",
)
_TAKES = (
    "One basket would have been enough. {hero} took two, and then a third, and filled {his} [hat|boots|bag] as well.",
    "{hero} ate some and packed some and put the rest in {his} [pockets|bag|hat], until {he} could hardly "
    "[walk|stand|breathe].",
    "{hero} wanted them all. {he} filled everything that could be filled, even {his} [boots|hat|socks].",
    "{hero} picked and picked, and when the basket was full, {he} [sat on it|jumped on it|shook it] to make more room.",
)
_ASKED_FOR_SOME = (
    "On the way home {he} met {guest.a}, who asked for just one or two.",
    "{guest.a} came by and looked at all the {fruit} with hungry eyes.",
    "{guest.a} had come too late and asked if {hero} could spare a few.",
)
_GUESTS = (
    ("a small sparrow", "the sparrow"),
    ("a thin hare", "the hare"),
    ("an old woman", "the old woman"),
    ("an old crow", "the crow"),
    ("a mother hen", "the hen"),
    ("a young deer", "the deer"),
    ("a tired ant", "the ant"),
    ("a hungry boy", "the boy"),
    ("a barefoot girl", "the girl"),
    ("a ragged traveler", "the traveler"),
)
_NO_LINES = (
    "No. They are mine",
    "Go and find your own",
    "I need every one of them",
    "I was here first",
    "There are not enough",
)
_TROUBLES = (
    (
        "On the bridge the bag tore, and all the {fruit} fell into the river with a plop, plop, plop.",
        "{hero} looked down at the water. There was nothing left to share, not even with {himself}.",
    ),
    (
        "The basket was so heavy that {he} fell [over backward|on {his} nose|over a stone], and everything rolled "
        "[down the hill|into the mud|into the stream].",
        "{hero} sat there with an empty basket on {his} head.",
    ),
    (
        "At home {he} ate until {he} could eat no more, and then {he} ate the rest.",
        "That night {his} tummy hurt so much that {he} could not even lie down.",
    ),
    (
        "{he} hid everything in a [deep hole|hollow tree|dark corner]. When {he} came back, there was only [mud|dust|a "
        "worm] and a bad smell.",
        "Not one of them was [good|left]. {hero} had wanted [all of them|everything], and now {he} had [none|nothing].",
    ),
    (
        "{he} put it all into the little boat, and the boat sank right under {him}.",
        "{hero} stood there with water up to {his} chin and watched the {fruit} float away.",
    ),
)
_GREED_HELP = (
    "And who came to help? It was {guest.the}, the very one {he} had sent away.",
    "Then somebody sat down beside {him}. It was {guest.the}, who had asked for a few and had gotten none.",
    "A [small|kind|soft] voice asked if {he} was all right. It was {guest.the}, and {hero}'s ears grew hot.",
    "But {guest.the} had seen it all and came back, and did not even laugh.",
)
_GREED_SORRY = (
    "I should have shared",
    "I took too many, and now there are none",
    "I am sorry. I only thought of me",
    "Why are you so kind to me?",
)
_GREED_ENDS = (
    "The next day {he} took one small basket, and half of it was for [the others|{guest.the}|{elder}].",
    "After that, whatever {hero} [picked|found|had], half of it was for somebody else.",
    "Together {hero} and {guest.the} found a few more, just enough for two, and nothing had ever tasted so good.",
    "Enough is a good word, {hero} thought. It is even better than more.",
    "{guest.the} had saved two of them, and gave one to {hero}. It was the sweetest of all.",
)


def took_too_many(story: Story) -> None:
    story.put(fruit=story.pick(("berries", "plums", "nuts", "cherries", "apples", "pears", "acorns")))
    story.put(guest=Mention(*story.pick(_GUESTS)))
    ruin, loss = story.pick(_TROUBLES)
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_PLENTY)
    story.say(_TAKES)
    story.paragraph(chance=0.5)
    story.say(_ASKED_FOR_SOME)
    story.speak("hero", _NO_LINES, CROSSLY)
    story.say((ruin,))
    story.say((loss,))
    scenes.feel_sorry(story, chance=0.5)
    story.paragraph(chance=0.7)
    story.say(_GREED_HELP)
    story.speak("hero", _GREED_SORRY, SADLY)
    story.say(_GREED_ENDS)
    scenes.close_tale(story, chance=0.3)
