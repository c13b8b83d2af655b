"""Tales of wonder: a wish that comes true, a seed that grows, a chain of trades."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import ADVISE, SADLY, SAY, WHISPER, Mention, Shapes, Story


@dataclass(frozen=True)
class _Wish:
    """A wish: its words, the fun of it, the trouble it brings, and what is loved again when it is over."""

    words: str
    why: Shapes
    fun: Shapes
    trouble: Shapes
    undone: str
    after: Shapes


_WISHES = (
    _Wish("I wish I were as tall as a tree",
          ("{hero} was tired of being small.", "{hero} could never reach the best apples."),
          ("{he} could pick apples without a ladder and look into the nests of the birds.",
           "{he} stepped over the river as if it were a puddle."),
          ("But {he} did not fit into {his} own bed, and nobody could hear what {he} said from so far up.",
           "But the birds built nests in {his} hair, and {his} friends were so tiny that {he} was afraid to move."),
          "I wish I were small again",
          ("{he} crept into {his} little bed, and it was just right.",
           "{hero} still could not reach the best apples, but there was a ladder for that.")),
    _Wish("I wish I could fly",
          ("{hero} had watched the birds all day.", "It was a long way to school, and {his} legs were tired."),
          ("Up {he} went, over the roofs and into the clouds, which were wet and cold and wonderful.",
           "{he} raced the crows around the church, and {he} nearly won."),
          ("But {he} could not stop. {he} flew while {he} ate, and {he} flew while {he} slept.",
           "But it was lonely up there, and the wind blew {him} where it liked."),
          "I wish I had both feet on the ground",
          ("The grass under {his} feet had never felt so good.",
           "{hero} still looks at the birds, but with both feet on the grass.")),
    _Wish("I wish it were summer all year long",
          ("The leaves were falling, and the wind was already cold.", "{hero} did not like wool socks, and winter was near."),
          ("The sun shone and shone, and {he} swam every day.", "There were berries in winter, and nobody wore boots."),
          ("But the river dried up, the flowers were tired, and nothing wanted to grow.",
           "But there was no snow, no fire in the stove, and no new leaves, because the old ones would not fall."),
          "I wish for winter, and then for spring",
          ("The next morning there was frost on the window, and {hero} danced in it.",
           "When the first snow fell, {hero} caught it on {his} tongue. It tasted like cake.")),
    _Wish("I wish everything I touched were made of cake",
          ("It was a long time until supper.", "{hero} could never get enough sweet things."),
          ("The chair was cake, and the table was cake, and {he} ate the door for lunch.",
           "{he} ate a whole fence, and it was the best fence {he} had ever eaten."),
          ("But then {he} touched {his} pillow, and then the cat, and the cat did not like it at all.",
           "But {he} could not sleep, or wash, or hug anyone. Crumbs were everywhere."),
          "I wish things were only things",
          ("For supper {he} had plain bread, and it was the best in the world.",
           "{he} hugged the cat, which was soft again, for a long time.")),
    _Wish("I wish I never had to go to bed",
          ("{elder} had just said that it was bedtime.", "{hero} always said that the best part of the day came after bedtime."),
          ("{he} played until the moon was gone, and then {he} played until morning.",
           "{he} saw the stars go out, one by one."),
          ("But {his} head was full of fog, and {he} put {his} boots in the soup.",
           "But {his} eyes hurt, and nobody was awake to play with."),
          "I wish I could sleep",
          ("{he} slept for a day and a night, and woke up hungry and happy.",
           "After that, {hero} went to bed as soon as the first star was out.")),
    _Wish("I wish nobody could see me",
          ("{hero} had done something silly, and everyone was laughing.", "{hero} did not want to wash the pots."),
          ("{he} walked right through the kitchen and took a bite of everything.",
           "{he} could win at hide and seek without hiding."),
          ("But nobody said good morning, and at supper there was no plate for {him}.",
           "But {friend}, {friend.a}, sat on {him} and did not know it, and {elder} cried because {he} was gone."),
          "I wish to be seen again",
          ("{elder} looked straight at {him} and smiled, and that was better than any game.",
           "{he} washed all the pots, and sang, so that everyone would know where {he} was.")),
    _Wish("I wish I could talk to every animal",
          ("{hero} had always wondered what the hens were saying.", "A crow had looked at {him} in a very strange way."),
          ("The hens told {him} about their eggs, and the mice told {him} jokes.",
           "The old horse told {him} a story that was three hundred years long."),
          ("But they never stopped. The bees talked all night, and the fish were sad about everything.",
           "But then the fox wanted help with the hens, and the hens wanted help with the fox."),
          "I wish for a little quiet",
          ("That evening {he} sat with the old horse, and nobody said a word, and it was lovely.",
           "{hero} could not understand the hens any more, but {he} still said good night to each of them.")),
)  # fmt: skip

_WISH_GIVERS = (
    ("{one_day}, {hero} found an old well, so deep that it had a star in it.", "the well"),
    ("One night a star fell, right behind {place.the}, and {hero} ran to find it. It was warm and no bigger than an egg.",
     "the star"),
    ("{one_day}, {hero} pulled a small golden fish out of a net by the river and let it go. It swam back.", "the fish"),
    ("{one_day}, {hero} helped a bee out of the water. It was a queen, with a tiny crown.", "the bee"),
    ("{one_day}, {hero} blew on a dandelion on the way to {place.the}, and it laughed.", "the dandelion"),
    ("{one_day}, {hero} rubbed the dust off an old spoon, and the spoon sneezed.", "the spoon"),
    ("{one_day}, {hero} picked up a gray stone on the way to {place.the}, and it opened one eye.", "the stone"),
)  # fmt: skip
_WISH_OFFERS = (
    "You may have one wish",
    "Wish for something, but think first",
    "One wish is yours. Be careful with it",
    "What would you like [most|best] in the whole world?",
)
_WISH_ASKS = ("{hero} did not think long.", "{hero} closed {his} eyes.", "{hero} knew at once what to say.", "The words just came out.")
_WISH_TRUE = (
    "There was a bright light, and it was so.",
    "Nothing happened. Then everything did.",
    "There was a smell of apples, and the wish came true.",
    "By the next morning it had come true.",
    "At first it was wonderful.",
)
_WISH_SORRY = (
    "Soon {he} was sadder than ever.",
    "It was not [what {he} had wanted at all|as much fun as {he} had thought|a good wish after all].",
    "{hero} sat down and thought about it, and it took a long time.",
    "So {hero} went back to {wisher}, as fast as {he} could.",
)
_WISH_UNDONE = (
    "{wisher} was not surprised. \"They all come back,\" said {wisher}, and made it so.",
    "{wisher} only winked, and everything was as it had been before.",
    "\"I thought so,\" said {wisher}, and it was done.",
)
_WISH_ENDS = (
    "And {hero} kept one thing from all of it, and that was the story.",
    "Be careful what you wish for, people say. But if {he} had not wished, {he} would not have known.",
    "{hero} looked around, and everything that {he} needed was there already.",
    "Sometimes {he} still goes to see {wisher}, but only to say hello.",
)


def wish(story: Story) -> None:
    """A wish comes true, is fun, is too much, and is taken back."""
    wished = story.pick(_WISHES)
    found, wisher = story.pick(_WISH_GIVERS)
    story.put(wisher=wisher)
    if "summer" in wished.words:
        story.put(one_day=story.pick(("one day in autumn", "one windy autumn day", "late one autumn afternoon")))
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say((found,))
    story.speak("wisher", _WISH_OFFERS, SAY)
    story.say(wished.why, chance=0.7)
    story.say(_WISH_ASKS, chance=0.6)
    story.speak("hero", (wished.words,), SAY)
    story.paragraph(chance=0.5)
    story.say(_WISH_TRUE, chance=0.8)
    story.say(wished.fun)
    story.say(wished.trouble)
    story.say(_WISH_SORRY)
    story.speak("hero", (wished.undone,), SADLY)
    story.say(_WISH_UNDONE, chance=0.8)
    story.paragraph(chance=0.5)
    story.say(wished.after)
    story.say(_WISH_ENDS, chance=0.8)
    scenes.close_tale(story, chance=0.15)


@dataclass(frozen=True)
class _Plant:
    """What a seed becomes, and what is done with it."""

    seed: str
    grows: Shapes
    use: Shapes


_PLANTS = (
    _Plant("a striped gray seed",
           ("It grew past the window and past the roof, and opened one great yellow eye. It was a sunflower.",),
           ("The birds ate its seeds all winter, and one of them fell right in front of {hero}.",)),
    _Plant("a flat white seed",
           ("A green rope ran over the wall, and at its end sat a pumpkin as big as a cart.",
            "Under the big leaves lay something round and orange, and it grew every night."),
           ("There was pumpkin soup for the whole village.", "A family of mice moved in, and there was soup for all.")),
    _Plant("a brown seed from the middle of an apple",
           ("It took years. {hero} grew, and the tree grew faster, and one spring it was white with flowers.",),
           ("Now {hero} sits in its shade, and there are apples for everyone who comes by.",)),
    _Plant("a red bean with a spot",
           ("It climbed up a stick, and up the wall, and looked in at the window.",),
           ("There were so many beans that {hero} gave away a basket every day.",)),
    _Plant("a seed as small as dust",
           ("It was not a tree, and it was not a bean. It was a poppy, as red as a king's coat.",),
           ("The next year there were ten of them, and the year after that, a whole field.",)),
    _Plant("a small hard stone from a plum",
           ("It was only a stick with two leaves, and then a bush, and then it was full of plums.",),
           ("{elder} made plum pie, and {hero} put the stones in {his} pocket to plant them all.",)),
    _Plant("a seed with a soft tail",
           ("It was only a dandelion. But it was the brightest one that anyone had ever seen.",),
           ("{hero} blew, and a hundred little stars flew over the wall to see the world.",)),
)  # fmt: skip

_SEED_BEGINS = (
    "{one_day}, {helper.a} gave {hero} {plant.seed} and told {him} to be patient.",
    "{one_day}, {hero} found {plant.seed} in {his} pocket and did not know where it came from.",
    "{one_day}, {elder} put {plant.seed} in {hero}'s {hero.hands}.",
    "{one_day}, a bird dropped {plant.seed} right in front of {hero}.",
)
_SEED_PLANTS = (
    "{he} dug a small hole [under the window|beside the gate|behind the house], put it in and gave it some water.",
    "{he} planted it by the [door|gate|wall], where the sun came [first|every morning].",
    "{he} [found|took] an old [boot|pot|bucket], filled it with good [black|dark] earth and planted it there.",
)
_SEED_WAITS = (
    "The next morning {he} ran out to look. There was [nothing|only mud]. There was nothing the day after that, either.",
    "{he} sat beside it for a whole day. Nothing came up but [a worm|an ant|a beetle].",
    "{hero} watered it every day and [told it to hurry. It did not hurry|told it stories. It did not listen].",
    "A week went by, and then another. The earth was as [flat|black|empty] as ever.",
)
_SEED_IMPATIENT = (
    "{hero} wanted to dig it up and look, but {elder} held {him} back.",
    "{hero} pulled at the ground. {hero} sang to it. {hero} shouted at it.",
    "\"It is never going to grow,\" said {friend}, {friend.a}, and ran off to play.",
    "{hero} nearly gave up, but {he} gave it one more [cup of water|day], and then one more.",
)
_SEED_LINES = ("Why does it take so long?", "Please grow, just a little", "Maybe it is asleep", "What are you doing down there?")
_SEED_ADVICE = (
    "It is working where you cannot see it",
    "You cannot pull a flower out of the ground. You can only wait for it",
    "Good things take the time they take",
    "Water it, and then do something else",
)
_SEED_SPROUTS = (
    "Then, one {weather} morning, there was a tiny green hook in the earth.",
    "After a [warm|soft|long] rain something had changed. One [thin|tiny|bright] green leaf stood there, as if to say [hello|good morning].",
    "And on the very day when {he} had [forgotten to look|nearly given up|stopped thinking about it], it came up.",
)
_SEED_DANGERS = (
    "A [snail|goat|hen] wanted to eat it, but {hero} built a little fence around it.",
    "One night there was frost, and {hero} covered it with {his} own [scarf|hat|blanket].",
    "It was a dry summer, and {hero} carried water from the well twice a day.",
    "The wind bent it to the ground, and {hero} tied it to a stick with a ribbon.",
)
_SEED_ENDS = (
    "And {hero}, who had never been patient, knew how to wait.",
    "Everything big was small once, {hero} thought, and [stood up a little taller|smiled at {his} own feet].",
    "When {elder} asked how {he} had done it, {hero} said that {he} had [mostly waited|only carried water].",
    "Whenever {hero} cannot wait for something, {he} thinks of {plant.seed}.",
)


def seed(story: Story) -> None:
    """A seed takes its time, and so must the hero."""
    plant = story.pick(_PLANTS)
    story.put(plant=plant, weather=story.pick(("sunny", "misty", "bright", "fresh", "mild")))
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_SEED_BEGINS)
    story.say(_SEED_PLANTS)
    story.say(_SEED_WAITS)
    story.speak("hero", _SEED_LINES, WHISPER, chance=0.7)
    story.paragraph(chance=0.4)
    story.say(_SEED_IMPATIENT, chance=0.8)
    story.speak("elder", _SEED_ADVICE, ADVISE, chance=0.7)
    story.paragraph(chance=0.5)
    story.say(_SEED_SPROUTS)
    scenes.feel_glad(story, chance=0.5)
    story.say(_SEED_DANGERS, chance=0.75)
    story.say(plant.grows)
    story.paragraph(chance=0.3)
    story.say(plant.use)
    story.say(_SEED_ENDS, chance=0.8)
    scenes.close_tale(story, chance=0.15)


@dataclass(frozen=True)
class _Ware:
    """Something to trade: with its articles, and why somebody needs it."""

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
)  # fmt: skip
_TRADERS = (
    "an old woman", "a sad tailor", "a shepherd", "a fat sailor", "a thin juggler", "a farmer", "a baker", "a soldier",
    "a tired singer", "a gray donkey", "a tall stork", "a peddler", "a cook", "a lost king", "a young painter",
)  # fmt: skip
_TRADE_BEGINS = (
    "{hero} wanted {goal}, but {he} had no money. All {he} had was {ware_1.a}.",
    "More than anything {hero} wanted {goal}. But in {his} pocket there was only {ware_1.a}.",
    "{one_day}, {hero} saw {goal} {place.at} and could think of nothing else. But {he} owned only {ware_1.a}.",
)
_TRADE_SETS_OUT = (
    "So {he} put it in a bag and went out to see what [the world|people] would give for it.",
    "{elder} said, \"Somebody always needs what you have.\" So {he} set out.",
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
    "{hero} did not think twice and gave away {ware.the}. \"Take this for it,\" said {trader.the}, and it was {ware_next.a}.",
    "{hero} held out {ware.the}. {trader.the} was so glad that {hero} got {ware_next.a} for it.",
    "\"[Here|Take it], you need it more than I do,\" said {hero}. And {trader.the} gave {him} {ware_next.a}.",
    "{hero} looked at {trader.the} and held out {ware.the}. In return {he} got {ware_next.a}.",
)
_TRADE_LAST = (
    "{hero} gave away {ware.the} and asked for nothing. {trader.the} laughed. \"I have no use for {goal}. Would you like it?\"",
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
    "a real drum", "a white kitten", "a red kite", "a toy train", "a silver flute", "a blue sled", "a little boat",
    "a book with pictures", "a golden bell", "a music box", "a puppy", "a box of paints",
)  # fmt: skip


def trades(story: Story) -> None:
    """From one small thing, a chain of trades leads to the one the hero wanted."""
    count = 3 if story.happens(0.6) else 2
    wares = story.several(_WARES, count)
    traders = [Mention(trader, f"the {trader.split()[-1]}") for trader in story.several(_TRADERS, count)]
    story.put(goal=story.pick(_GOALS), ware_1=wares[0])
    scenes.open_tale(story)
    story.paragraph(chance=0.7)
    story.say(_TRADE_BEGINS)
    story.say(_TRADE_SETS_OUT)
    story.paragraph(chance=0.7)
    for step, trader in enumerate(traders):
        story.put(trader=trader, who=trader.the, ware=wares[step])
        story.say(_TRADE_NEXT if step else _TRADE_MEETS)
        story.speak("who", (wares[step].need,), SADLY if story.happens(0.5) else SAY)
        if step + 1 < count:
            story.put(ware_next=wares[step + 1])
            story.say(_TRADE_GIVES)
    story.paragraph(chance=0.6)
    story.say(_TRADE_LAST)
    scenes.feel_glad(story, chance=0.7)
    story.say(_TRADE_ENDS)
    scenes.close_tale(story, chance=0.15)
