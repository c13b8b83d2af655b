"""Plot: the hero is afraid of something, is needed, and goes anyway."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import ADVISE, WHISPER, Shapes, Story


@dataclass(frozen=True)
class _Fear:
    """A fear: ways to avoid it, the trials that force the hero to face it, and the harmless truth.

    Each trial is an event, the brave act, and the result of the act.
    """

    of: str
    avoids: Shapes
    trials: tuple[tuple[str, str, str], ...]
    truth: Shapes


_FEARS = (
    _Fear(
        "the dark",
        (
            "{he} always slept with a candle by the bed.",
            "{he} ran up the stairs at night and never looked back.",
            "At night {he} [hid|kept] {his} head under the blanket, even in summer.",
        ),
        (
            (
                "One night the candle went out, and in the next room [the baby|a tiny kitten] began to cry.",
                "{hero} put one foot on the cold floor, and then the other. {he} felt {his} way along the wall, step "
                "by step.",
                "The crying stopped as soon as {he} sat down beside the little bed.",
            ),
            (
                "One night {elder} came home late, and the [lamp|lantern] at the gate had gone out.",
                "{hero} sang very softly and walked out into the dark to light it again.",
                "Soon the [lamp|lantern] was bright again, and {elder} found the way.",
            ),
            (
                "One night {hero} left {his} {thing} outside, and it began to rain.",
                "{hero} opened the door and took ten steps, and counted every one of them.",
                "There was the {thing.noun}, hardly wet at all.",
            ),
        ),
        (
            "Nothing jumped out. The dark was only the same [room|garden|world] with its eyes closed.",
            "Soon {his} eyes could see [a chair, a door|a roof, a tree] and a sky full of stars. It was the dark that "
            "made "
            "the stars.",
        ),
    ),
    _Fear(
        "thunder",
        (
            "{he} hid under the bed whenever the sky turned gray.",
            "{he} put {his} head under a pillow at every bang.",
            "When the clouds [came|grew dark], {he} [ran home|held both ears] and shook like a leaf.",
        ),
        (
            (
                "One night a great storm came, and a [little lamb|wet puppy] stood outside, crying for its mother.",
                "{hero} ran out into the rain and brought it in. Then {he} counted out loud after every flash. One, "
                "two, three.",
                "The little one fell asleep in {his} arms.",
            ),
            (
                "One evening the sky went black, and {friend} was caught outside with no place to hide.",
                "{hero} opened the door, though the storm was loud, and ran out to [wave a lantern|ring a bell].",
                "{friend} saw it and came in, wet and glad.",
            ),
        ),
        (
            "The thunder was only the sky, playing a big drum.",
            "The count got longer each time, and {he} knew that the storm was going away.",
            "It was loud, but it was only [loud|noise], and noise could not bite.",
        ),
    ),
    _Fear(
        "deep water",
        (
            "{he} never went in past {his} knees.",
            "{he} would not even sit in a boat.",
            "{he} [watched|sat on the bank] when the others jumped in.",
        ),
        (
            (
                "{one_day}, a duckling was caught in the reeds of the lake, and it was crying for help.",
                "{hero} took one step, and then another. The water came up to {his} tummy, and then up to {his} chin.",
                "{he} pushed the reeds out of the way, and the duckling was free.",
            ),
            (
                "{one_day}, the hat of {friend} blew off and sailed away on the lake like a little boat.",
                "{hero} shut {his} eyes, kicked with both feet and did not stop.",
                "{he} came back with the hat on {his} own head.",
            ),
        ),
        (
            "The water held {him} up like a big, cool hand.",
            "It was only water, and it was wet all the way through, and that was all.",
        ),
    ),
    _Fear(
        "being high up",
        (
            "{he} would not even stand on a chair.",
            "{he} never climbed past the first step of a ladder.",
            "When the others climbed [trees|the tower|the wall], {he} stayed on the ground and held their hats.",
        ),
        (
            (
                "{one_day}, a kitten sat on the roof of the barn and cried, and nobody else was there to help.",
                "{hero} held on with both {hero.hands} and went up the ladder, slowly, slowly, counting every step.",
                "The kitten jumped into {his} arms and would not let go.",
            ),
            (
                "{one_day}, the kite of {friend} was caught at the top of a tall tree.",
                "{hero} climbed one branch, and then one more, and {he} never looked down.",
                "The kite came loose, and {friend} cheered and cheered.",
            ),
        ),
        (
            "From the top {he} could see the whole valley, and it was lovely.",
            "Up there the wind was soft, and {near_the} looked like a toy.",
        ),
    ),
    _Fear(
        "the big dog by the mill",
        (
            "{he} always took the long way around.",
            "{he} ran past its gate as fast as {he} could.",
            "{he} could hear it bark from [the church|the far end of the village|under the blanket].",
        ),
        (
            (
                "{one_day}, {his} ball rolled through the gate and stopped between two big paws.",
                "{hero} opened the gate, just a little, and held out {food.part}.",
                "The dog ate it, pushed the ball over with its nose and sat down.",
            ),
            (
                "{one_day}, the big dog lay by the gate and did not bark. It only cried.",
                "{hero} came closer, one small step at a time, and spoke in a soft voice.",
                "There was a thorn in its foot. {hero} pulled it out, and the dog licked {his} whole face.",
            ),
        ),
        (
            "The dog did not want to bite anyone. It only wanted somebody to play ball.",
            "It was not a bad dog. It was only a big dog with nobody to talk to.",
        ),
    ),
    _Fear(
        "the old bridge",
        ("{he} always went the long way through the mud.", "{he} thought that it talked like a hungry giant."),
        (
            (
                "{one_day}, {elder} was ill on the other side and needed [soup|help] before dark.",
                "{hero} held the rope and counted every step. Ten, eleven, twelve.",
                "{elder} had never been so glad to see anyone.",
            ),
            (
                "{one_day}, a little [lamb|goat|duckling] stood in the middle of the bridge and was too scared to "
                "move.",
                "{hero} looked at the far side, not at the water, and put one foot in front of the other.",
                "Then {he} led the little one across, and both of them were shaking and smiling.",
            ),
        ),
        (
            "The bridge shook, but it held. It was only an old bridge telling its stories.",
            "On the far side {he} turned around and saw how small the bridge really was.",
        ),
    ),
    _Fear(
        "singing when others could hear",
        (
            "{he} only sang behind the barn, where only the cows could hear.",
            "When people came, {he} hid behind {elder}.",
        ),
        (
            (
                "{one_day}, at the fair, the old singer had a cold, and everyone sat and waited.",
                "{hero} stood up on shaking legs. The first note was as thin as a thread, but it held.",
                "When it was over, they clapped and clapped.",
            ),
            (
                "{one_day}, a baby would not stop crying, and nobody knew what to do.",
                "{hero} looked at one kind face and began, very softly.",
                "The baby stopped crying, and then it slept.",
            ),
        ),
        (
            "With every line the song grew bigger, and {he} grew with it.",
            "Nobody laughed. They listened, and then they sang along.",
        ),
    ),
    _Fear(
        "the scarecrow in the corn",
        ("{he} was sure that it turned its head when nobody looked.", "{he} never walked past it alone."),
        (
            (
                "{one_day}, the wind blew off its hat and dropped it right in front of {him}.",
                "{hero} picked up the hat, walked straight into the corn and looked up.",
                "{he} put the hat back on its head, and nothing happened at all.",
            ),
            (
                "{one_day}, {hero} heard a thin voice from the middle of the corn. It was a lost chick.",
                "{hero} pushed through the corn and walked right up to those long straw arms.",
                "There sat the chick, and {he} picked it up and carried it home.",
            ),
        ),
        (
            "It was only an old coat full of straw, with a family of birds under its hat.",
            "From close by, its painted smile was a friendly one, and a mouse was asleep in its pocket.",
        ),
    ),
)
_AFRAID = (
    "{hero} was not afraid of much, but {he} was afraid of {fear.of}.",
    "There was only one thing that {hero} was afraid of, and that was {fear.of}.",
    "But {he} had a secret. {he} was afraid of {fear.of}.",
    "Nobody knew that {hero} was afraid of {fear.of}.",
)
_BRAVE_ADVICE = (
    "Brave is not the same as not afraid. You can be both",
    "Everyone is afraid of something. I am afraid of hens",
    "Brave is what you are when your knees shake and you still go",
    "A fear looks smaller when you walk up to it",
    "You can be scared and do it, too",
)
_DECIDES = (
    "{hero} looked [around|left and right]. There was nobody else.",
    "{he} thought of running away. Then {he} thought of who was waiting.",
    "{hero} counted to three, and nothing happened. So {he} counted to three again.",
    "Somebody had to do something, and {hero} was the only one there.",
)
_DECIDE_LINES = (
    "I can do this",
    "I am scared, but I am coming",
    "One step. I will only take one step",
    "If I do not go, who will?",
    "I will be brave for as long as it takes to count to ten",
)
_BRAVE_NOW = (
    "{hero} had done it!",
    "It was over before {he} had time to be afraid again.",
    "And all was well in the end.",
    "Only later did {his} legs begin to shake, and then {he} had to laugh.",
)
_AFTER_FEAR = (
    "{he} was still a little afraid of {fear.of} after that, but only a little.",
    "The next time it was not so hard, and the time after that, it was easy.",
    '"I was afraid the whole time," {hero} told {elder} later. "And I did it anyway."',
    "From that day on, {hero} [helped|was kind to|sat with] others who were afraid, because {he} knew how it felt.",
    "And the fear, which had been as big as a house, now fit into {his} pocket.",
)


def fear_overcome(story: Story) -> None:
    fear = story.pick(_FEARS)
    trial, act, done = story.pick(fear.trials)
    scenes.choose_thing(story)
    story.put(fear=fear)
    scenes.open_tale(story)
    story.say(_AFRAID)
    story.say(fear.avoids)
    story.speak("elder", _BRAVE_ADVICE, ADVISE, chance=0.5)
    story.paragraph()
    story.say((trial,))
    scenes.feel_scared(story)
    story.say(_DECIDES, chance=0.6)
    story.speak("hero", _DECIDE_LINES, WHISPER, chance=0.7)
    story.paragraph(chance=0.5)
    story.say((act,))
    story.say(fear.truth)
    story.say((done,))
    story.say(_BRAVE_NOW, chance=0.6)
    story.paragraph(chance=0.4)
    scenes.feel_proud(story, chance=0.7)
    story.say(_AFTER_FEAR)
    scenes.close_tale(story, chance=0.35)
