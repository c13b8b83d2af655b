"""Plot: from one small thing, a chain of trades leads to the one that the hero wanted."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import SADLY, SAY, Mention, Story


@dataclass(frozen=True)
class _Ware:
    """A thing to trade, with its articles, and a reason to need it."""

    a: str
    the: str
    need: str


_WARES = (
    _Ware("a ball of string", "the string", "My sack is open, and everything falls out"),
    _Ware("a big red button", "the button", "My coat will not stay shut, and the wind is cold"),
    _Ware("a wooden spoon", "the spoon", "I have soup, and I have to eat it with a stick"),
    _Ware("an egg", "the egg", "I want to bake a cake, and my hen has gone away"),
    _Ware("a warm hat", "the hat", "My ears are so cold that they ring"),
    _Ware("a long rope", "the rope", "My goat is in the well, and it will not climb"),
    _Ware("a jar of honey", "the honey", "My throat hurts, and tonight I have to sing"),
    _Ware("a bright lantern", "the lantern", "The road is dark, and I have far to go"),
    _Ware("a long needle", "the needle", "There is a hole in my coat, and the wind comes in"),
    _Ware("a basket of eggs", "the basket", "Tomorrow is my wedding, and there is nothing to eat"),
    _Ware("a little mirror", "the mirror", "I have something in my eye, and I cannot see it"),
    _Ware("an umbrella", "the umbrella", "Look at that sky, and look at my new hat"),
    _Ware("a tin whistle", "the whistle", "My dog only comes when I whistle, and my lips are dry"),
    _Ware("a pair of boots", "the boots", "There are three holes in my left boot and four in my right"),
    _Ware("a bag of flour", "the flour", "I promised to bake bread, and the mice came first"),
)
_TRADERS = (
    "an old woman",
    "a sad tailor",
    "a shepherd",
    "a fat sailor",
    "a thin juggler",
    "a farmer",
    "a baker",
    "a soldier",
    "a tired singer",
    "a gray donkey",
    "a tall stork",
    "a peddler",
    "a cook",
    "a lost king",
    "a young painter",
)
_TRADE_BEGINS = (
    "{hero} wanted {goal}, but {he} had no money. All {he} had was {ware_1.a}.",
    "More than anything {hero} wanted {goal}. But in {his} pocket there was only {ware_1.a}.",
    "{one_day}, {hero} saw {goal} {place.at} and could think of nothing else. But {he} owned only {ware_1.a}.",
)
_TRADE_SETS_OUT = (
    "So {he} put it in a bag and went out to see what [the world|people] would give for it.",
    '{elder} said, "Somebody always needs what you have." So {he} set out.',
    "{he} went {way_1} to try {his} luck.",
)
_TRADE_MEETS = (
    "Soon {he} met {trader.a}, who looked unhappy.",
    "{way_2} {he} found {trader.a} in trouble.",
    "At the first corner stood {trader.a} with a long face.",
)
_TRADE_NEXT = (
    "With {ware.the} under one arm {he} walked on, until {he} met {trader.a}.",
    "{he} had not gone far when {trader.a} came along.",
    "The next one {he} met was {trader.a}.",
    "On the bridge sat {trader.a}, close to tears.",
)
_TRADE_GIVES = (
    '{hero} did not think twice and gave away {ware.the}. "Take this for it," said {trader.the}, and it was '
    "{ware_next.a}.",
    "{hero} held out {ware.the}. {trader.the} was so glad that {hero} got {ware_next.a} for it.",
    '"[Here|Take it], you need it more than I do," said {hero}. And {trader.the} gave {him} {ware_next.a}.',
    "{hero} looked at {trader.the} and held out {ware.the}. In return {he} got {ware_next.a}.",
)
_TRADE_LAST = (
    '{hero} gave away {ware.the} and asked for nothing. {trader.the} laughed. "I have no use for {goal}. Would you '
    'like it?"',
    "{trader.the} took {ware.the} with a bow, and from under the cart came {goal}.",
    "{hero} handed over {ware.the}. And what did {trader.the} pull out of the bag? It was {goal}!",
)
_TRADE_ENDS = (
    "So {hero} came home with what {he} had wanted, and on the way {he} had made new friends.",
    "{hero} ran all the way home, and behind {him} the whole road was happy.",
    "In the evening {he} told {elder}, and the list was so long that the soup went cold.",
    "It had all begun with {ware_1.a}. You never know what a small thing is good for.",
    "And somewhere down the road, people still talk about {hero} and {ware_1.the}.",
)
_GOALS = (
    "a real drum",
    "a white kitten",
    "a red kite",
    "a toy train",
    "a silver flute",
    "a blue sled",
    "a little boat",
    "a book with pictures",
    "a golden bell",
    "a music box",
    "a puppy",
    "a box of paints",
)


def trades(story: Story) -> None:
    count = 3 if story.happens(0.6) else 2
    wares = story.several(_WARES, count)
    traders = [Mention(trader, f"the {trader.split()[-1]}") for trader in story.several(_TRADERS, count)]
    story.put(goal=story.pick(_GOALS), ware_1=wares[0])
    scenes.open_tale(story)
    story.paragraph(chance=0.7)
    story.say(_TRADE_BEGINS)
    story.say(_TRADE_SETS_OUT)
    story.paragraph(chance=0.7)
    meets = [story.pick(_TRADE_MEETS), *story.several(_TRADE_NEXT, count - 1)]
    gives = story.several(_TRADE_GIVES, count - 1)
    for step, trader in enumerate(traders):
        story.put(trader=trader, who=trader.the, ware=wares[step])
        story.say((meets[step],))
        story.speak("who", (wares[step].need,), SADLY if story.happens(0.5) else SAY)
        if step + 1 < count:
            story.put(ware_next=wares[step + 1])
            story.say((gives[step],))
    story.paragraph(chance=0.6)
    story.say(_TRADE_LAST)
    scenes.feel_glad(story, chance=0.7)
    story.say(_TRADE_ENDS)
    scenes.close_tale(story, chance=0.15)
