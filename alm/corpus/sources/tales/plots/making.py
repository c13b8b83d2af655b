"""Tales of making: a broken thing mended, something built, a gift made by hand."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import (
    ADVISE, GLADLY, SADLY, SAY, Shapes, Story,
)  # fmt: skip


@dataclass(frozen=True)
class _Broken:
    """A thing that can break: mends that fail, who can mend it, and the ways it breaks.

    A way is what happens, how it is mended, and the mark that stays.
    """

    noun: str
    bad_mends: Shapes
    maker: str
    ways: tuple[tuple[str, str, str], ...]


_BROKEN = (
    _Broken("kite", ("tied it together with grass, but the grass broke", "closed the hole with mud, but the mud fell off"),
            "the tailor",
            (("the wind tore a long hole in it", "cut a piece from an old red coat and sewed it on", "red corner"),
             ("it flew into a thorn bush and came out with three holes", "sewed a star over every hole", "three stars"))),
    _Broken("wagon", ("tied it on with string, but it fell off at once", "used a lump of mud, but it dried and fell off"),
            "the wheel maker",
            (("one wheel came off and rolled down the hill", "put a ring of iron around the wheel", "iron ring"),
             ("it hit a stone, and the handle broke", "cut a new handle from a young tree", "white handle"))),
    _Broken("teapot", ("put it together with honey, but the ants ate it", "tied a string around it, but the tea ran out"),
            "the potter",
            (("it slipped from {his} {hero.hands} and broke in two", "painted a thin golden line over the crack",
              "golden line"),
             ("the handle came off", "made a new handle that looked like a bird", "little bird"))),
    _Broken("chair", ("put a box under it, but it fell over", "used a lump of mud, but it was as soft as soup"),
            "the carpenter",
            (("one leg broke with a loud crack", "cut a new leg from an apple branch", "new leg"),
             ("the seat fell through", "made a new seat out of green reeds", "green seat"))),
    _Broken("doll", ("used a lump of mud, but it dried and fell off", "tied it up with grass, but the grass broke"),
            "the tailor",
            (("one arm came off", "took a needle and a green thread and sewed and sewed", "green thread"),
             ("a playful puppy pulled off its hair", "made new hair out of yellow wool", "yellow hair"))),
    _Broken("clock", ("shook it hard, but it only made a strange noise", "gave it a drop of soup, but that did not help"),
            "the clock maker",
            (("it fell from the wall and would not go", "put every little wheel back in its place", "happy sound"),
             ("a wheel jumped out and rolled under the stove", "caught the wheel and pushed it back in", "new song"))),
    _Broken("lantern", ("made a window out of paper, but the paper caught fire", "closed it with leaves, but then it was dark"),
            "the blacksmith",
            (("the glass broke into five pieces", "put in a new glass, as blue as the sky", "blue light"),
             ("a cow stepped on it", "made the fire hot and hammered the iron straight", "crooked little roof"))),
    _Broken("fiddle", ("used a piece of grass for a string, but it sounded like an unhappy cow",
                       "filled it with wool, but then it only whispered"),
            "the fiddle maker",
            (("two strings broke at the same time", "rubbed the wood until it shone and put on new strings",
              "warm sound"),
             ("there was suddenly a crack from end to end", "closed the crack with a thin piece of wood", "thin line"))),
)  # fmt: skip

_OWNED = (
    "In {his} home there was an old {broken.noun}, and {elder} loved it very much.",
    "{elder} had an old {broken.noun}, older than the two of them together.",
    "There was one thing in the house that {hero} was not allowed to [touch|play with]. It was an old {broken.noun}.",
    "{his} [finest|best] thing was an old {broken.noun} from {elder}.",
)
_BREAKS = (
    "{one_day}, {hero} was playing with the {broken.noun}, and {breaks}.",
    "{one_day}, {hero} wanted to show the {broken.noun} to {friend}, {friend.a}. But {breaks}.",
    "{one_day}, when {hero} was in a great hurry, something bad happened to the {broken.noun}. {breaks}.",
    "{one_day}, {hero} took the {broken.noun} outside, only for a moment, and {breaks}.",
)
_BROKEN_LINES = (
    "Oh no, what have I done!",
    "I will mend it. I must",
    "It was so old, and now it is broken",
    "Nobody can mend this",
)
_MAKER_TELLS = (
    "{hero} put all the pieces in a bag and took them to {broken.maker}.",
    "Then {he} heard that {broken.maker} could mend anything but a broken egg. {he} set out at once, {way_1}.",
    "{elder} was not angry. Together they carried the {broken.noun} to {broken.maker}.",
    "So {hero} went {way_1} and knocked at the door of {broken.maker}.",
)
_MAKER_LINES = (
    "I can show you how, but you have to do it yourself",
    "Broken is not the end. Hold this",
    "I have seen worse. Sit down and watch",
    "What breaks in a moment takes an hour to mend. [Do you have an hour|Can you sit still for that long|Are you in a hurry]?",
    "Give me that end, and do not let go",
)
_MENDS = (
    "{broken.maker} {mend}. {hero} held the light and did not move.",
    "First they [looked|measured|talked about it], and then they [thought|looked again]. Then {broken.maker} {mend}.",
    "It took all afternoon. {broken.maker} {mend}, and {hero} handed over the tools, one by one.",
    "With {hero} holding tight, {broken.maker} {mend}.",
)
_PAYS = (
    "To pay for it, {hero} washed the whole floor.",
    "For pay, {broken.maker} asked only for a song.",
    "{hero} came every day for a week to help, and learned how to hold a hammer.",
    "{broken.maker} did not want any money, only {food.part}.",
)
_AS_GOOD = (
    "The {broken.noun} was not new again. But with its {mark}, there was no other like it in the world.",
    "{elder} looked at it for a long time and said that it was better than before.",
    "And the best thing about the {broken.noun}, from then on, was its {mark}.",
    "Everyone who saw the {broken.noun} asked about its {mark}, and {hero} told the story with joy.",
)
_MENDED_ENDS = (
    "Now when something breaks, {hero} does not cry. {he} goes and gets a hammer.",
    "And later, when {elder} broke a cup, {hero} knew just what to say.",
    "{hero} kept the old broken piece in a box, so as not to forget.",
    "Soon {he} could mend a [chair|boot|basket] all alone, and the neighbors came to ask for help.",
)


def broken_mended(story: Story) -> None:
    """Something dear breaks, a quick mend fails, and a patient one makes it better."""
    broken = story.pick(_BROKEN)
    breaks, mend, mark = story.pick(broken.ways)
    story.put(broken=broken, breaks=story.fill(breaks), mend=mend, mark=mark)
    story.put(bad_mend=story.pick(broken.bad_mends), maker=broken.maker)
    scenes.open_tale(story)
    story.say(_OWNED)
    story.paragraph(chance=0.8)
    story.say(_BREAKS)
    story.speak("hero", _BROKEN_LINES, SADLY)
    scenes.feel_sorry(story, chance=0.6)
    story.say(("{hero} {bad_mend}.", "First {he} {bad_mend}.", "In a hurry, {hero} {bad_mend}."), chance=0.8)
    story.paragraph(chance=0.7)
    story.say(_MAKER_TELLS)
    story.speak("maker", _MAKER_LINES, ADVISE)
    story.say(_MENDS)
    story.say(_PAYS, chance=0.6)
    story.paragraph(chance=0.5)
    story.say(_AS_GOOD)
    story.say(_MENDED_ENDS, chance=0.7)
    scenes.close_tale(story, chance=0.25)


@dataclass(frozen=True)
class _Building:
    """Something to build: where and what from, how the first one fails and the better way, and what it is good for."""

    noun: str
    where: str
    stuff: str
    tries: tuple[tuple[str, str], ...]
    use: Shapes


_BUILDINGS = (
    _Building("boat", "by the river", "old boards and a rope",
              (("it sank before they could say a word", "they closed every little hole with wool"),
               ("it turned over and threw them into the water", "they made it twice as long")),
              ("They sailed to the other bank and were home for supper.",
               "They sailed up and down all day with their feet in the water.")),
    _Building("bridge", "over the stream", "two long boards",
              (("it slid into the water", "they put big stones under it"),
               ("it broke in the middle when a goat walked over it", "they put three boards side by side")),
              ("Soon everyone came that way, even the goat.", "The postman used it every day and was never late again.")),
    _Building("tree house", "in the old oak", "boards and an old rope",
              (("the floor fell down, with both of them on it", "they took a strong branch and tied every board twice"),
               ("the first wind blew the roof into the next field", "they made the roof low and round")),
              ("At night they could see every star from there.", "It had room for two, or for three if nobody moved.")),
    _Building("snow house", "behind the barn", "clean new snow",
              (("the wall fell on top of them", "they made it small and round"),
               ("the sun came out, and one side was gone", "they put water over it, and it turned as hard as stone")),
              ("They drank hot milk in it until it was dark.", "It stood until the first flowers came.")),
    _Building("sand castle", "on the beach", "wet sand and shells",
              (("a wave came and took it away", "they built it far from the water"),
               ("the tower fell over before it was done", "they made the sand wetter and the tower bigger")),
              ("A beetle moved in like a king.", "For one whole day it was the finest castle in the world.")),
    _Building("cart", "in the shed", "a box and four wheels",
              (("all four wheels rolled away", "they put the wheels on with iron rings"),
               ("it would not stop, and it ended in the duck pond", "they put an old boot on one wheel to make it slow")),
              ("It carried pumpkins all day and two friends after supper.",
               "Down the hill they flew, faster than the crows.")),
    _Building("bird house", "in the apple tree", "a wooden box",
              (("the door was so small that no bird could get in", "they made the hole as big as an egg"),
               ("the wind shook it down in the night", "they tied it to the branch with a rope")),
              ("In spring there were five blue eggs in it.", "A robin moved in the same day and sang to say thank you.")),
    _Building("tent", "in the meadow", "two blankets and some sticks",
              (("it fell down as soon as they were inside", "they dug deep holes for the sticks"),
               ("the wind filled it and carried it away", "they tied it to a strong young tree")),
              ("They told stories in it by the light of a lantern.", "It kept out the rain, or most of it.")),
)  # fmt: skip

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
    "{hero} [hammered|worked], {friend} held things, and both of them [sang|hummed|told jokes]. But when it was finished, {fails}.",
    "They were [so fast|in such a hurry] that they did not stop to [measure|think|look twice]. It looked fine for a minute. Then {fails}.",
)
_FAIL_LINES = ("I give up", "We will never do it", "It was your idea", "Now we have to start all over", "Maybe it was too quick")
_THINKS = (
    "They sat [in the grass|on a log] and looked at what was left. They did not [talk|look at each other] for a while.",
    "{helper.a} came by and looked at it. \"Most good things fall down once,\" said {helper}.",
    "[{friend}|{hero}] began to laugh, and then they [both laughed|could not stop].",
    "{elder} brought them something to eat and asked what they had learned.",
    "That night {hero} [lay awake|sat at the window] and thought about it.",
)
_REBUILDS = (
    "The next day they tried again. This time {better}.",
    "So they began once more, slowly, and {better}.",
    "\"What if we [do it like this|try it another way|begin at the bottom]?\" said {hero}, and {better}.",
    "\"I know [what was wrong|what to do|how we can do it],\" said {friend}. They worked until dark, and {better}.",
)
_STANDS = (
    "{hero} held {his} breath. It held!",
    "They looked at each other. It worked!",
    "And this time nothing [fell|moved|cracked], nothing broke, and nobody got wet, or not very wet.",
    "It was [a little crooked|not very pretty|smaller than before], but it was [strong|safe], and it was theirs.",
)
_BUILT_ENDS = (
    "\"The first one was only for fun,\" said {friend}.",
    "They painted it red on one side and blue on the other.",
    "They had made it with their own {hero.hands}, and nobody could take that away.",
    "And the next morning they made a plan for something even bigger.",
    "From far away you could hear them say it. We made this!",
)


def building(story: Story) -> None:
    """Two friends build something, it fails, and they find the better way."""
    plan = story.pick(_BUILDINGS)
    fails, better = story.pick(plan.tries)
    story.put(building=plan, fails=fails, better=better)
    if plan.noun == "snow house":
        story.put(one_day=story.pick(("one winter morning", "one cold day in winter", "one white winter afternoon")))
    scenes.open_tale(story)
    scenes.introduce_friend(story)
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


@dataclass(frozen=True)
class _Handmade:
    """A gift made by hand: how it is made, what goes wrong, how that is saved, and why it is loved."""

    a: str
    made: str
    wrong: str
    saved: str
    loved: str


_HANDMADE = (
    _Handmade("a long scarf", "made it from old wool every night when the others were asleep",
              "fell asleep over it, and there was a hole as big as a plum",
              "sewed a yellow flower over the hole",
              "the yellow flower was the best part of it"),
    _Handmade("a drawing of the whole family", "drew it with a bit of coal from the stove",
              "knocked over a cup of tea, right on one corner", "turned the brown spot into a big, friendly bear",
              "everyone wanted to know the name of the bear"),
    _Handmade("a wooden spoon", "cut it from a branch of the old apple tree",
              "cut too deep, and the spoon came out as crooked as a road",
              "bent the other end as well, so that it looked right",
              "no other spoon could reach the last drop of soup"),
    _Handmade("a honey cake", "baked it with the last of the honey",
              "opened the oven too soon, and the cake fell flat",
              "filled the hole with berries and called it a berry nest", "it was gone in no time, down to the last bite"),
    _Handmade("a little book of stories", "wrote one page every day and sewed the pages together",
              "forgot to write down the end", "left the last page white, so that everyone could make up an end",
              "it had a new end every time"),
    _Handmade("a string of acorns", "picked the best acorns and put them on a string",
              "left it on the step, and a squirrel ate half of it", "put little white stones in between",
              "it sounded like rain when it moved"),
    _Handmade("a soft pillow", "sewed it from an old coat and filled it with wool",
              "made two of the corners much too long", "painted a face on it and called them ears",
              "it was a pillow and a rabbit at the same time"),
    _Handmade("a pot for flowers", "made it from river mud and dried it in the sun",
              "left it out in the rain, and it bent to one side", "painted a ladder on it, for the flowers to climb",
              "it looked as if the pot was saying hello"),
)  # fmt: skip

_BIRTHDAYS = (
    "Soon it would be the birthday of {receiver}, and {hero} wanted to give something very special.",
    "{receiver} had a birthday in seven days. {hero} counted them on {his} {hero.hands}.",
    "{one_day}, {hero} remembered that the birthday of {receiver} was only a week away.",
    "Winter was coming, and {hero} wanted to thank {receiver} for a good year.",
)
_NO_MONEY = (
    "{he} emptied {his} pockets and found [a string, a nut|two nuts, a feather|a stone, an old key] and no money at all.",
    "{he} looked at all the fine things {place.at} on market day, but {he} had only one small coin.",
    "In the shop there was {thing.a}, but it cost more than {he} had in the world.",
    "{he} shook {his} money box. One button fell out.",
)
_GIFT_IDEAS = (
    "Then I will make something",
    "I have two {hero.hands} and a whole week",
    "It does not have to be big. It has to be mine",
    "What do I have that nobody can buy?",
)
_MAKES = (
    "So {hero} began to make {gift.a}. {he} {made}.",
    "{he} thought for a whole day. Then {he} made {gift.a}. {he} {made}.",
    "In secret, {hero} made {gift.a}. {he} {made}, and nobody knew.",
)
_GOES_WRONG = (
    "But {he} {wrong}.",
    "Everything went well until {he} {wrong}.",
    "It was almost done when {he} {wrong}.",
    "On the last evening {he} {wrong}.",
)
_SAVES = (
    "There was no time to [start|begin|try] again. So {he} {saved}.",
    "{hero} cried for a minute. Then {he} {saved}.",
    "{hero} looked at it for a long time, and then {he} {saved}.",
    "\"Now I must think,\" said {hero}, and {he} {saved}.",
)
_GIVES = (
    "On the day, {hero} stood there with [hot ears|pink cheeks|a dry mouth] and held out the gift.",
    "The others brought big boxes. {hero} put {his} gift [at the very end of the table|behind all the others|under a chair].",
    "\"It is not [perfect|much|very big],\" said {hero}, and {his} voice was [very small|as thin as a thread].",
    "{hero} hid it [behind {his} back|under {his} coat] until the last moment.",
)
_RECEIVES = (
    "{receiver} was quiet for so long that {hero} was afraid.",
    "{receiver} looked at it from every side and began to smile.",
    "{receiver} laughed out loud for joy.",
)
_RECEIVER_LINES = (
    "You made this for me?",
    "This is the one I will keep forever",
    "Nobody else in the world has one like it",
    "I can see that you made it yourself, and that is why I love it",
)
_GIFT_ENDS = (
    "And really, {loved}.",
    "The big boxes were soon forgotten. But {loved}.",
    "As it turned out, {loved}.",
    "Of all the gifts, it was the one that they talked about most, for {loved}.",
)


def handmade_gift(story: Story) -> None:
    """The hero has no money for a gift and makes one, and the flaw in it becomes the best part."""
    gift = story.pick(_HANDMADE)
    scenes.choose_thing(story)
    story.put(gift=gift, made=story.fill(gift.made), wrong=gift.wrong, saved=gift.saved, loved=gift.loved)
    is_for_friend = story.happens(0.5)
    story.put(receiver=story.fill("{friend}" if is_for_friend else "{elder}"))
    scenes.open_tale(story)
    if is_for_friend:
        scenes.introduce_friend(story)
    story.paragraph(chance=0.8)
    story.say(_BIRTHDAYS)
    story.say(_NO_MONEY)
    story.speak("hero", _GIFT_IDEAS, SAY, chance=0.7)
    story.paragraph(chance=0.5)
    story.say(_MAKES)
    story.say(_GOES_WRONG)
    scenes.feel_sad(story, chance=0.35)
    story.say(_SAVES)
    story.paragraph(chance=0.8)
    story.say(_GIVES)
    story.say(_RECEIVES)
    story.speak("receiver", _RECEIVER_LINES, GLADLY)
    story.say(_GIFT_ENDS)
    scenes.feel_proud(story, chance=0.3)
    scenes.close_tale(story, chance=0.2)
