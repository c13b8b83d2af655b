"""Plot: a strange noise at night turns out to be something small."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes, words
from alm.corpus.sources.tales.story import GLADLY, WHISPER, Story


@dataclass(frozen=True)
class _Noise:
    """A noise at night, and the harmless thing that made it."""

    sound: str
    guess: str
    found: tuple[str, ...]
    after: tuple[str, ...]


_NOISES = (
    _Noise(
        "tap, tap, tap",
        "a cold hand on the window",
        (
            "It was a branch of the pear tree, tapping on the glass.",
            "It was a small bird that had lost its way and wanted to come in.",
        ),
        (
            "{hero} waved at it and went back to bed.",
            "{hero} opened the window, and it slept on the lamp until morning.",
        ),
    ),
    _Noise(
        "bump, bump, bump",
        "a giant on the stairs",
        (
            "It was a ball that rolled down the stairs, with a kitten behind it.",
            "It was {elder}, who had hurt one toe in the dark and was jumping on one foot.",
        ),
        ("{hero} took both of them to bed.", "They both laughed until the neighbors knocked on the wall."),
    ),
    _Noise(
        "scratch, scratch",
        "a hungry wolf at the door",
        ("It was a hedgehog, stuck in an empty milk can.", "It was a puppy that wanted to come in from the cold."),
        (
            "{hero} pulled it out and gave it [a bowl of milk|a piece of apple].",
            "It stayed until morning, and then for good.",
        ),
    ),
    _Noise(
        "whoo, whoo",
        "a ghost on the roof",
        (
            "It was an old bottle on the wall, and the wind was playing on it like a flute.",
            "It was a young owl, practicing for its first night out.",
        ),
        ("{hero} listened for a while, because it was really very pretty.", "{hero} said good night, and it answered."),
    ),
    _Noise(
        "drip, drop, drip",
        "a wet monster coming closer",
        (
            "It was a hole in the roof, and rain was falling into the soup pot.",
            "It was {his} own wet coat by the door.",
        ),
        (
            "{hero} put a spoon under the drops, and then it sounded like music.",
            "{hero} shook it and went back to bed.",
        ),
    ),
    _Noise(
        "creak, creak",
        "someone walking on the roof",
        ("It was the garden gate, open in the wind.", "It was the old chair, with the cat in it."),
        ("{hero} shut it with a piece of string.", "{hero} sat down, too, and sang until {he} was sleepy."),
    ),
    _Noise(
        "munch, munch",
        "something very hungry under the bed",
        (
            "It was a mouse with a piece of cheese, as scared as {he} was.",
            "It was a goat, with its head through the window and a sock in its mouth.",
        ),
        ("{hero} let it eat its supper.", "{hero} got the sock back, or most of it."),
    ),
    _Noise(
        "snore, snore",
        "a dragon behind the door",
        (
            "It was {elder}, fast asleep in a chair, with an open book for a hat.",
            "It was a fat toad, singing in the flower pot.",
        ),
        ("{hero} put a blanket on {elder} and tiptoed off.", "{hero} bowed to it and closed the door very softly."),
    ),
)
_NIGHT_HEARS = (
    "One {night} night, {hero} woke up. Something went {noise.sound}.",
    "One night, when the [house was dark|moon was thin|fire was out], {hero} heard a noise. {noise.sound}, it went.",
    "One night {hero} could not sleep. And then {he} heard it. {noise.sound}!",
    "In the middle of a {night} night, a sound woke {him}. It went {noise.sound}.",
)
_NIGHT_GUESSES = (
    "It sounded like {noise.guess}.",
    "{hero} was sure that it was {noise.guess}.",
    "What could it be? Perhaps it was {noise.guess}.",
    "In the dark {he} could think of only one thing, and that was {noise.guess}.",
)
_NIGHT_HIDES = (
    "{he} pulled the blanket [up to {his} nose|over {his} ears|up to {his} chin]. {noise.sound}, it went again.",
    "{he} [hid under the pillow|covered {his} ears|sang a song], but {he} could still hear it.",
    "{he} waited for it to stop, but it only [grew louder|came closer|went on and on].",
    "{he} counted [ten|seven|twelve] sheep, but the sheep were [scared|awake|afraid] as well.",
)
_NIGHT_LINES = (
    "Who is there?",
    "Go away, please",
    "I am not afraid of you, or only a little",
    "Hello? Is that a monster?",
)
_NIGHT_GOES = (
    "At last {hero} took [the lamp|a candle], put on one sock and tiptoed toward the sound.",
    "[It is worse not to know|I have to see what it is|It cannot be so bad], {he} thought. So {he} took a "
    "[broom|spoon|pillow] in one hand and opened the door.",
    "With {his} {thing} for luck, {hero} crept out of bed, across the cold floor and into the dark.",
    "{he} got up. One step. Two steps. The floor was cold, and the [sound|noise] [came closer|grew louder|stopped, and "
    "then began again].",
)
_NIGHT_LAUGHS = (
    "{hero} had to laugh.",
    "{hero} laughed so [hard|loud] that [{he} had to sit down|the whole house woke up|{his} tummy hurt].",
    "All the fear went out of {him} like [air out of a balloon|water out of a bucket|smoke up into the sky].",
    "{hero} let out a long breath and [smiled|shook {his} head|sat down on the floor].",
)
_NIGHT_ENDS = (
    "Now when something goes {noise.sound} in the night, {hero} only turns over and sleeps on.",
    "After that, {hero} was the one who went to look whenever something went bump in the night.",
    "In the morning {he} told {elder}, and the monster got a little bigger with every telling.",
    "Most monsters, {hero} found out, are only things that nobody has looked at.",
    "Then the house was quiet, and the only sound was {hero}, sleeping.",
)


def night_noise(story: Story) -> None:
    scenes.choose_thing(story, words.KEPT)
    index = 0 if story.happens(0.5) else 1
    noise = story.pick(_NOISES)
    story.put(noise=noise, night=story.pick(("windy", "dark", "cold", "still", "long")))
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_NIGHT_HEARS)
    story.say(_NIGHT_GUESSES)
    scenes.feel_scared(story)
    story.say(_NIGHT_HIDES)
    story.speak("hero", _NIGHT_LINES, WHISPER, chance=0.7)
    story.paragraph(chance=0.6)
    story.say(_NIGHT_GOES)
    story.say((noise.found[index],))
    story.say(_NIGHT_LAUGHS)
    story.speak(
        "hero",
        (
            "So that is what you are",
            "And I was so afraid of you",
            "You do not look like a monster",
            "I thought you were {noise.guess}",
        ),
        GLADLY,
        chance=0.5,
    )
    story.say((noise.after[index],))
    story.paragraph(chance=0.4)
    story.say(_NIGHT_ENDS)
