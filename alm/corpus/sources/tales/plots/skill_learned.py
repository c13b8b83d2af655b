"""Plot: the hero cannot do something, fails, learns the trick and practices until it works."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import GLADLY_CRY, KINDLY, SADLY, Shapes, Story


@dataclass(frozen=True)
class _Skill:
    """A skill: the reason to learn it, first tries, the trick, and the moment of success."""

    verb: str
    wants: Shapes
    fails: Shapes
    tip: Shapes
    works: Shapes


_SKILLS = (
    _Skill(
        "whistle",
        ("Everyone could whistle, even the baby.", "{he} wanted to call the birds."),
        ("Only air came out, and a bit of soup.", "It sounded like a boot with a hole in it."),
        ("Make your mouth as small as a cherry", "Wet your lips and think of the wind"),
        ("Out came one thin, high note. A bird answered.", "There it was, a real whistle, and a puppy came running."),
    ),
    _Skill(
        "ride a bike",
        ("There was an old green bike in the shed.", "All {his} friends could do it."),
        ("{he} fell to the left and {he} fell to the right.", "{he} went straight into the hedge."),
        ("Look at where you want to go, not at the ground", "Go a little faster, and do not be afraid"),
        (
            "All at once the wheels hummed, and the hedge stayed where it was.",
            "{he} went all the way to the well before {he} saw that nobody was holding on.",
        ),
    ),
    _Skill(
        "skate",
        ("The pond was as hard as glass, and everyone was on it.", "{he} had a pair of old skates from {elder}."),
        ("{his} feet went one way, and the rest of {him} went the other.", "{he} sat down more than {he} stood."),
        ("Be soft in the knees, as if you were shy", "Fall ten times. Then it gets better"),
        ("{he} pushed once, and the world slid by without a sound.", "{he} made a whole circle and did not fall."),
    ),
    _Skill(
        "swim",
        ("In summer the others jumped into the lake like frogs.", "{he} wanted to see the fish from close by."),
        ("{he} kicked and kicked and drank half of the lake.", "{he} sank like a spoon."),
        ("Lie back and let the water hold you", "Be slow and round, like a sleepy whale"),
        ("The water held {him}. {he} swam!", "{he} swam from the dock to the green boat, all alone."),
    ),
    _Skill(
        "bake bread",
        ("{he} loved the smell of it.", "{he} wanted to make breakfast for everyone."),
        ("The first loaf was as hard as a brick.", "The bread stuck to the table, to the cat and to {him}."),
        ("Give it time. Bread has to sleep", "Turn it and turn it, until your arms hurt"),
        (
            "This time it rose like the moon, golden and round.",
            "The whole house smelled of it, and it was gone in a minute.",
        ),
    ),
    _Skill(
        "play the fiddle",
        ("There would be a dance at the end of the summer.", "{he} had heard one once, and never forgot it."),
        ("It sounded like a cat in a bag.", "The neighbors shut their windows, one by one."),
        ("Slowly. One note, and then one more", "Hold it like a bird, not like a hammer"),
        ("One evening it was not noise any more. It was a song.", "{elder} began to tap one foot, and then the other."),
    ),
    _Skill(
        "skip stones",
        ("{elder} could make a stone jump seven times.", "All the others could do it."),
        ("Plop, and plop, and plop again.", "Every stone went straight to the bottom."),
        ("Find a flat one and keep it low", "Wait until the water is still"),
        (
            "One, two, three, four, five, and on it went!",
            "The stone danced across the water as if it would never stop.",
        ),
    ),
    _Skill(
        "tie a bow",
        ("{his} boots were always open.", "{he} was tired of asking for help."),
        ("{he} made a bow so big that it had to be cut.", "{he} tied {his} feet together and fell over."),
        ("Make two ears like a rabbit, and cross them", "One goes around the tree and into the hole"),
        (
            "There sat a perfect bow, with two ears just the same.",
            "{he} pulled, and it held, and {he} ran and did not fall.",
        ),
    ),
    _Skill(
        "juggle",
        ("A juggler had come to the fair, with five golden apples.", "{he} had three apples and nothing to do."),
        ("One apple hit the window, and one hit {elder}.", "All of them fell on {his} nose."),
        ("Let go of one before you catch the next", "Do not look at your {hero.hands}. Look up"),
        ("Round and round they went, like little red birds.", "For a whole minute nothing fell."),
    ),
    _Skill(
        "read",
        ("There was a book at home with a ship on it.", "{he} wanted to know what the letters said."),
        ("The letters stood there like ants and said nothing.", "{he} read a word, and it was the wrong one."),
        (
            "Say it slowly, and then all in one breath",
            "Begin with the small words. They hold the door open for the big ones",
        ),
        (
            "Suddenly the letters said ship, and then they said sea.",
            "{he} read a whole line, and then another, and it was night.",
        ),
    ),
    _Skill(
        "dance",
        ("Soon there would be a wedding in the village.", "{he} had never danced with anyone but a broom."),
        ("{he} stepped on every foot in the room, twice.", "{he} turned left when everyone turned right."),
        ("Do not count. Listen", "Let the drum tell your feet what to do"),
        (
            "Then the music got into {his} knees, and they knew what to do.",
            "{he} turned and turned, and no toes were hurt.",
        ),
    ),
)
_SKILL_BEGINS = (
    "There was one thing that {hero} could not do. {he} could not {skill.verb}.",
    "More than anything, {hero} wanted to learn to {skill.verb}.",
    "{one_day}, {hero} made up {his} mind to learn to {skill.verb}.",
    "{one_day}, {hero} saw {friend} {skill.verb} as if it were nothing, and {he} wanted to do it, too.",
)
_SKILL_GIVES_UP = (
    "I will never learn it",
    "It is too hard for me",
    "I do not even want to do it any more",
    "Everyone can do it but me",
    "Maybe some people just cannot {skill.verb}",
)
_SKILL_PRACTICES = (
    "So {hero} tried again, every day, before breakfast and after supper.",
    "{he} tried it ten times. Then {he} tried it ten times more.",
    "{hero} practiced behind the [barn|shed|mill], where only the [cows|hens|ducks] could see.",
    "For a week {he} did nothing else. It got a little better each day, too little to see.",
    "{he} failed again, but this time {he} failed a little better.",
)
_SKILL_WORKS_LINES = ("I can do it", "Did you see that?", "Look! Look at me", "I did it, all by myself")
_SKILL_ENDS = (
    "The next week somebody asked {hero} how to {skill.verb}, and {he} knew just what to say.",
    "After that, nobody could make {him} stop.",
    "It had been hard for so long, and now it was as easy as [eating|falling asleep].",
    "Whenever something is hard, {hero} thinks of that day and tries once more.",
    "And {elder}, who had seen it all, bowed very low.",
)


def skill_learned(story: Story) -> None:
    skill = _skill_to_learn(story)
    story.put(skill=skill)
    if skill.verb == "skate":
        story.put(one_day=story.pick(("one cold winter day", "one morning in winter", "one bright, cold day")))
    scenes.open_tale(story)
    story.paragraph(chance=0.7)
    story.say(_SKILL_BEGINS)
    story.say(skill.wants)
    story.say(skill.fails)
    story.speak("hero", _SKILL_GIVES_UP, SADLY)
    scenes.feel_sad(story, chance=0.3)
    story.paragraph(chance=0.7)
    if story.happens(0.5):
        scenes.meet_helper(story)
        story.speak("helper", skill.tip, KINDLY)
    else:
        story.speak("elder", skill.tip, KINDLY)
    story.say(_SKILL_PRACTICES)
    story.paragraph(chance=0.4)
    story.say(
        (
            "And then, one {weather} {part_of_day}, it happened.",
            "On the tenth day something changed.",
            "And one [evening|afternoon], when [nobody was looking|{he} was thinking of supper|it was almost dark], it "
            "worked.",
        )
    )
    story.say(skill.works)
    story.speak("hero", _SKILL_WORKS_LINES, GLADLY_CRY)
    scenes.feel_proud(story, chance=0.5)
    story.say(_SKILL_ENDS)


def _skill_to_learn(story: Story) -> _Skill:
    """Choose a skill, except that a frog, an otter or a beaver does not have to learn to swim."""
    skill = story.pick(_SKILLS)
    is_born_with_it = skill.verb == "swim" and story.fill("{hero.kind}") in ("frog", "otter", "beaver")
    return _SKILLS[0] if is_born_with_it else skill
