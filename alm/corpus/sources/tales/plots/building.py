"""Plot: two friends build something, it fails, and they find a better way."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import GLADLY, SADLY, Shapes, Story


@dataclass(frozen=True)
class _Building:
    """A building: its place and material, the failure of the first one, the better way, and its use."""

    noun: str
    where: str
    stuff: str
    tries: tuple[tuple[str, str], ...]
    use: Shapes


_BUILDINGS = (
    _Building(
        "boat",
        "by the river",
        "old boards and a rope",
        (
            ("it sank before they could say a word", "they closed every little hole with wool"),
            ("it turned over and threw them into the water", "they made it twice as long"),
        ),
        (
            "They sailed to the other bank and were home for supper.",
            "They sailed up and down all day with their feet in the water.",
        ),
    ),
    _Building(
        "bridge",
        "over the stream",
        "two long boards",
        (
            ("it slid into the water", "they put big stones under it"),
            ("it broke in the middle when a goat walked over it", "they put three boards side by side"),
        ),
        ("Soon everyone came that way, even the goat.", "The postman used it every day and was never late again."),
    ),
    _Building(
        "tree house",
        "in the old oak",
        "boards and an old rope",
        (
            ("the floor fell down, with both of them on it", "they took a strong branch and tied everything twice"),
            ("the first wind blew the roof into the next field", "they made the roof low and round"),
        ),
        ("At night they could see every star from there.", "It had room for two, or for three if nobody moved."),
    ),
    _Building(
        "snow house",
        "behind the barn",
        "clean new snow",
        (
            ("the wall fell on top of them", "they made it small and round"),
            ("the sun came out, and one side was gone", "they put water over it, and it turned as hard as stone"),
        ),
        ("They drank hot milk in it until it was dark.", "It stood until the first flowers came."),
    ),
    _Building(
        "sand castle",
        "on the beach",
        "wet sand and shells",
        (
            ("a wave came and took it away", "they built it far from the water"),
            ("the tower fell over before it was done", "they took better sand and made the tower bigger"),
        ),
        ("A beetle moved in like a king.", "For one whole day it was the finest castle in the world."),
    ),
    _Building(
        "cart",
        "in the shed",
        "a box and four wheels",
        (
            ("all four wheels rolled away", "they put the wheels on with iron rings"),
            ("it would not stop, and it ended in the duck pond", "they put an old boot on one wheel to make it slow"),
        ),
        (
            "It carried pumpkins all day and two friends after supper.",
            "Down the hill they flew, faster than the crows.",
        ),
    ),
    _Building(
        "bird house",
        "in the apple tree",
        "a wooden box",
        (
            ("the door was so small that no bird could get in", "they made the hole as big as an egg"),
            ("the wind shook it down in the night", "they tied it to the branch with a rope"),
        ),
        ("In spring there were five blue eggs in it.", "A robin moved in the same day and sang to say thank you."),
    ),
    _Building(
        "tent",
        "in the meadow",
        "two blankets and some sticks",
        (
            ("it fell down as soon as they were inside", "they dug deep holes for the sticks"),
            ("the wind filled it and carried it away", "they tied it to a strong young tree"),
        ),
        ("They told stories in it by the light of a lantern.", "It kept out the rain, or most of it."),
    ),
)
_PLANS = (
    "{one_day}, {hero} said that they should build a {building.noun} {building.where}.",
    "{one_day}, {friend} found {building.stuff}, and that gave them an idea. They would build a {building.noun}.",
    "{one_day}, the two friends had nothing to do. So they made a plan to build a {building.noun} {building.where}.",
    "{one_day}, {hero} drew a {building.noun} on a piece of paper and showed it to {friend}.",
)
_PLAN_LINES = (
    "It will be the best {building.noun} in the world",
    "I will do the thinking, and you hold the hammer",
    "How hard can it be?",
    "We only need {building.stuff}",
    "Let us begin right now",
)
_BUILDS = (
    "They worked all morning with {building.stuff}. It was not pretty, and when they tried it, {fails}.",
    "They took {building.stuff} and went to work, and by noon it was done. Then {fails}.",
    "{hero} [hammered|worked], {friend} held things, and both of them [sang|hummed|told jokes]. But when it was "
    "finished, {fails}.",
    "They were [so fast|in such a hurry] that they did not stop to [measure|think|look twice]. It looked fine for a "
    "minute. Then {fails}.",
)
_FAIL_LINES = (
    "I give up",
    "We will never do it",
    "It was your idea",
    "Now we have to start all over",
    "Maybe it was too quick",
)
_THINKS = (
    "They sat [in the grass|on a log] and looked at what was left. They did not [talk|look at each other] for a while.",
    '{helper.a} came by and looked at it. "Most good things fall down once," said {helper}.',
    "[{friend}|{hero}] began to laugh, and then they [both laughed|could not stop].",
    "{elder} brought them something to eat and asked what they had learned.",
    "That night {hero} [lay awake|sat at the window] and thought about it.",
)
_REBUILDS = (
    "The next day they tried again. This time {better}.",
    "So they began once more, slowly, and {better}.",
    '"What if we [do it like this|try it another way|begin at the bottom]?" said {hero}, and {better}.',
    '"I know [what was wrong|what to do|how we can do it]," said {friend}. They worked until dark, and {better}.',
)
_STANDS = (
    "{hero} held {his} breath. It held!",
    "They looked at each other. It worked!",
    "And this time nothing [fell|moved|cracked], nothing broke, and nobody got wet, or not very wet.",
    "It was [a little crooked|not very pretty|smaller than before], but it was [strong|safe], and it was theirs.",
)
_BUILT_ENDS = (
    '"The first one was only for fun," said {friend}.',
    "They painted it red on one side and blue on the other.",
    "They had made it with their own {hero.hands}, and nobody could take that away.",
    "And the next morning they made a plan for something even bigger.",
    "From far away you could hear them say it. We made this!",
)


def building(story: Story) -> None:
    plan = story.pick(_BUILDINGS)
    fails, better = story.pick(plan.tries)
    story.put(building=plan, fails=fails, better=better)
    if plan.noun == "snow house":
        story.put(one_day=story.pick(("one winter morning", "one cold day in winter", "one white winter afternoon")))
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_PLANS)
    story.speak("friend" if story.happens(0.5) else "hero", _PLAN_LINES, GLADLY)
    story.say(_BUILDS)
    story.speak("friend" if story.happens(0.5) else "hero", _FAIL_LINES, SADLY, chance=0.7)
    story.paragraph(chance=0.8)
    story.say(_THINKS)
    story.say(_REBUILDS)
    story.say(_STANDS)
    scenes.feel_glad(story, chance=0.3)
    story.paragraph(chance=0.3)
    story.say(plan.use)
    story.say(_BUILT_ENDS, chance=0.8)
    scenes.close_tale(story, chance=0.15)
