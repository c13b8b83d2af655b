"""Plot: the hero blames another, cannot bear it and admits the truth."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes, words
from alm.corpus.sources.tales.story import ADVISE, ASK, REPLY, SADLY, Shapes, Story


@dataclass(frozen=True)
class _Mischief:
    """A secret misdeed: the rule, the deed, the one who is blamed for it, and the consequence for that one."""

    rule: Shapes
    deed: Shapes
    blamed: str
    lie: Shapes
    suffers: Shapes
    mended: Shapes


_MISCHIEFS = (
    _Mischief(
        (
            "{one_day}, {elder} baked {food.a} and told everyone to wait until supper.",
            "{one_day}, {food.a} stood on the table, and it was not for {hero}.",
        ),
        (
            "{hero} only wanted one small bite. But one bite led to another, until the plate was empty.",
            "{hero} broke off one corner, and then three more, to make it even. Soon nothing was left.",
        ),
        "the cat",
        ("The cat ate it", "I saw the cat on the table", "It must have been the cat again"),
        (
            "The cat was put out in the rain and sat on the wall, wet and thin.",
            "That night the cat got no milk, and it looked at {hero} through the window.",
        ),
        (
            "Together they baked a new one, and this time {hero} waited.",
            "{hero} gave the cat {his} own milk for a whole week.",
        ),
    ),
    _Mischief(
        (
            "{one_day}, {elder} said for the tenth time that nobody should play ball in the house.",
            "{one_day}, it was too wet to go outside, and {hero} played ball by the stove.",
        ),
        (
            "The ball flew once, and twice, and hit the blue pot. It fell down in a hundred pieces.",
            "The ball flew high, and the best plate came down with a bang.",
        ),
        "the wind",
        ("It was the wind", "The window blew open, and then it happened", "The wind came in and did it"),
        (
            "So {elder} shut the window for good. The room grew hot, and nobody could hear the birds.",
            "So {elder} put heavy boards over the window, and the room was dark all day.",
        ),
        (
            "They opened the window again, and the wind came in as if nothing had happened.",
            "They put the pieces together again, and it took the whole evening.",
        ),
    ),
    _Mischief(
        (
            "{one_day}, it was {hero}'s turn to shut the gate of the hen house.",
            "{one_day}, {elder} asked {hero} to look after the hens and to keep the gate shut.",
        ),
        (
            "But {he} ran off to play and left it open. By noon the hens were all over the village.",
            "But {he} was thinking of other things, and the gate stood open, and every hen was gone.",
        ),
        "{friend}",
        ("{friend} left it open", "I think it was {friend}", "It must have been {friend}, from next door"),
        (
            "So {friend} had to look for the hens, all alone, until it was dark.",
            "So {friend} was not allowed to come to the fair, and cried behind the shed.",
        ),
        (
            "{hero} and {friend} brought in the last hen together, long after dark.",
            "{hero} stayed home to feed the hens, and {friend} went to the fair after all.",
        ),
    ),
    _Mischief(
        (
            "{one_day}, {elder} painted the wall white and asked {hero} not to touch it.",
            "{one_day}, the new white wall shone in the sun, and {hero} had a piece of coal in {his} pocket.",
        ),
        (
            "{hero} only wanted to draw one small horse. Soon there was a whole farm.",
            "{hero} touched it, and then there were ten black spots, and then {he} made them into ten black sheep.",
        ),
        "the crow",
        ("The crow did it", "A crow came by with dirty feet", "It was that old crow, I saw it"),
        (
            "So {elder} chased the crow away with a broom, and it did not come for its crumbs any more.",
            "The crow was not allowed to sit on the roof any more, and it flew off into the cold.",
        ),
        (
            "They painted the wall again, but {elder} left one of the sheep where it was.",
            "{hero} painted the wall white again and put out a big plate of crumbs for the crow.",
        ),
    ),
    _Mischief(
        (
            "{one_day}, {elder} gave {hero} a letter for the miller and told {him} to go straight there.",
            "{one_day}, {hero} had to carry a letter to the miller. It was important.",
        ),
        (
            "But on the way {he} made a paper boat out of it, and the boat sailed away.",
            "But {he} stopped to play, and when {he} looked again, the letter was gone.",
        ),
        "the goat",
        ("The goat ate it", "I met the goat, and it was hungry", "The goat took it right out of my bag"),
        (
            "So the goat was shut in the shed. It cried so sadly that everyone could hear it.",
            "So they tied the goat to a tree, far away from the sweet green grass.",
        ),
        (
            "They wrote a new letter, and {hero} ran all the way with it.",
            "{hero} let the goat out with {his} own {hero.hands} and told it the whole story.",
        ),
    ),
    _Mischief(
        (
            "{one_day}, {elder} planted a row of young beans and told {hero} not to run there.",
            "{one_day}, the new beans were just coming up, and {elder} had put a string around them.",
        ),
        (
            "But {hero} ran, and slipped, and fell. When {he} got up, the beans were flat.",
            "A butterfly flew over the string, and {hero} went right after it. Not one bean was left standing.",
        ),
        "the puppy",
        ("The puppy did it", "It was the puppy, with its big feet", "I saw the puppy digging there"),
        (
            "So the puppy was tied to the gate, and it did not know why.",
            "So the puppy had to stay in the shed, and it cried like a little wolf.",
        ),
        (
            "They planted new beans, and {hero} carried the water every day.",
            "{hero} let the puppy out, and it licked {his} face as if nothing had happened.",
        ),
    ),
)
_WHO = ("Who did this?", "What happened here?", "Do you know anything about this?", "{hero}, was that you?")
_BELIEVED = (
    "It was out before {he} could stop it.",
    "The words tasted like soap.",
    "{elder} believed it.",
    "{he} did not look up when {he} said it.",
)
_GUILT = (
    "That night {hero} could not sleep. The lie sat on {his} chest like a fat toad.",
    "At supper {he} could not eat. Even {food.a} tasted like nothing.",
    "{he} tried to think of [something else|{hobby}|happy things], but it was no good.",
    "A little lie is heavy, and it gets heavier in the dark.",
    "Everyone was [kind|nice] to {him}, and that was the [worst of all|worst part].",
)
_OWNS_UP = (
    "In the morning {he} could not bear it any longer and ran to {elder}.",
    "At last {hero} stood up, though {his} knees were weak, and went to find {elder}.",
    "In the middle of the night {he} knocked at {elder}'s door.",
    "{hero} went to {elder} and opened {his} mouth, and shut it, and opened it again.",
)
_TRUTH_LINES = (
    "It was not {blamed}. It was me",
    "I told a lie. I did it myself",
    "I am so sorry. {blamed} did nothing at all",
    "I have to tell you something, and it is not nice",
)
_FORGIVES = (
    "That was hard to say. Thank you for saying it",
    "I am sad about the lie, but I am proud of the truth",
    "I wondered how long you would carry it",
    "Now we will go and make it right",
    "Broken things can be mended, and so can this",
)
_TRUTH_ENDS = (
    "That night {hero} slept like a stone.",
    "It is strange, but the truth was not heavy at all.",
    "After that, when something went wrong, {hero} said so before anybody asked.",
    "And [{his} supper|the soup|every bite] tasted [good|right|sweet] again.",
    "{hero} never told a lie again, or if {he} did, it was a very [small|silly] one.",
)


def lie_owned(story: Story) -> None:
    mischief = story.pick(_MISCHIEFS)
    story.put(food=story.pick(words.CAKES))
    story.put(blamed=story.fill(mischief.blamed))
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(mischief.rule)
    story.say(mischief.deed)
    story.speak("elder", _WHO, ASK)
    story.speak("hero", mischief.lie, REPLY)
    story.say(_BELIEVED, chance=0.7)
    story.paragraph(chance=0.7)
    story.say(mischief.suffers)
    scenes.feel_sorry(story, chance=0.5)
    story.say(_GUILT)
    story.paragraph(chance=0.7)
    story.say(_OWNS_UP)
    story.speak("hero", _TRUTH_LINES, SADLY)
    story.speak("elder", _FORGIVES, ADVISE)
    story.say(mischief.mended)
    story.say(_TRUTH_ENDS)
