"""Tales of the truth: a lie told and owned up to, too much taken, a boast that grew too big."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes, words
from alm.corpus.sources.tales.story import (
    ADVISE, ASK, CROSSLY, REPLY, SADLY, SAY, WHISPER, Mention, Shapes, Story,
)  # fmt: skip


@dataclass(frozen=True)
class _Mischief:
    """Something done in secret: the rule, the deed, who is blamed for it and what that one suffers."""

    rule: Shapes
    deed: Shapes
    blamed: str
    lie: Shapes
    suffers: Shapes
    mended: Shapes


_MISCHIEFS = (
    _Mischief(
        ("{one_day}, {elder} baked {food.a} and told everyone to wait until supper.",
         "{one_day}, {food.a} stood on the table, and it was not for {hero}."),
        ("{hero} only wanted one small bite. But one bite led to another, until the plate was empty.",
         "{hero} broke off one corner, and then three more, to make it even. Soon nothing was left."),
        "the cat", ("The cat ate it", "I saw the cat on the table", "That cat loves {food.a}, you know"),
        ("The cat was put out in the rain and sat on the wall, wet and thin.",
         "That night the cat got no milk, and it looked at {hero} through the window."),
        ("Together they baked a new one, and this time {hero} waited.",
         "{hero} gave the cat {his} own milk for a whole week."),
    ),
    _Mischief(
        ("{one_day}, {elder} said for the tenth time that nobody should play ball in the house.",
         "{one_day}, it was too wet to go outside, and {hero} played ball by the stove."),
        ("The ball flew once, and twice, and hit the blue pot. It fell down in a hundred pieces.",
         "The ball flew high, and the best plate came down with a bang."),
        "the wind", ("It was the wind", "The window blew open, and then it happened", "The wind came in and did it"),
        ("So {elder} shut the window for good. The room grew hot, and nobody could hear the birds.",
         "So {elder} put heavy boards over the window, and the room was dark all day."),
        ("They opened the window again, and the wind came in as if nothing had happened.",
         "They put the pieces together again, and it took the whole evening."),
    ),
    _Mischief(
        ("{one_day}, it was {hero}'s turn to shut the gate of the hen house.",
         "{one_day}, {elder} asked {hero} to look after the hens and to keep the gate shut."),
        ("But {he} ran off to play and left it open. By noon the hens were all over the village.",
         "But {he} was thinking of other things, and the gate stood open, and every hen was gone."),
        "{friend}", ("{friend} left it open", "I think it was {friend}", "It must have been {friend}, from next door"),
        ("So {friend} had to look for the hens, all alone, until it was dark.",
         "So {friend} was not allowed to come to the fair, and cried behind the shed."),
        ("{hero} and {friend} brought in the last hen together, long after dark.",
         "{hero} stayed home to feed the hens, and {friend} went to the fair after all."),
    ),
    _Mischief(
        ("{one_day}, {elder} painted the wall white and asked {hero} not to touch it.",
         "{one_day}, the new white wall shone in the sun, and {hero} had a piece of coal in {his} pocket."),
        ("{hero} only wanted to draw one small horse. Soon there was a whole farm.",
         "{hero} touched it, and then there were ten black spots, and then {he} made them into ten black sheep."),
        "the crow", ("The crow did it", "A crow came by with dirty feet", "It was that old crow, I saw it"),
        ("So {elder} chased the crow away with a broom, and it did not come for its crumbs any more.",
         "The crow was not allowed to sit on the roof any more, and it flew off into the cold."),
        ("They painted the wall again, but {elder} left one of the sheep where it was.",
         "{hero} painted the wall white again and put out a big plate of crumbs for the crow."),
    ),
    _Mischief(
        ("{one_day}, {elder} gave {hero} a letter for the miller and told {him} to go straight there.",
         "{one_day}, {hero} had to carry a letter to the miller. It was important."),
        ("But on the way {he} made a paper boat out of it, and the boat sailed away.",
         "But {he} stopped to play, and when {he} looked again, the letter was gone."),
        "the goat", ("The goat ate it", "I met the goat, and it was hungry", "The goat took it right out of my bag"),
        ("So the goat was shut in the shed. It cried so sadly that everyone could hear it.",
         "So they tied the goat to a tree, far away from the sweet green grass."),
        ("They wrote a new letter, and {hero} ran all the way with it.",
         "{hero} let the goat out with {his} own {hero.hands} and told it the whole story."),
    ),
    _Mischief(
        ("{one_day}, {elder} planted a row of young beans and told {hero} not to run there.",
         "{one_day}, the new beans were just coming up, and {elder} had put a string around them."),
        ("But {hero} ran, and slipped, and fell. When {he} got up, the beans were flat.",
         "A butterfly flew over the string, and {hero} went right after it. Not one bean was left standing."),
        "the puppy", ("The puppy did it", "It was the puppy, with its big feet", "I saw the puppy digging there"),
        ("So the puppy was tied to the gate, and it did not know why.",
         "So the puppy had to stay in the shed, and it cried like a little wolf."),
        ("They planted new beans, and {hero} carried the water every day.",
         "{hero} let the puppy out, and it licked {his} face as if nothing had happened."),
    ),
)  # fmt: skip

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
    "{hero} never told a lie again, or if {he} did, it was a very [small|short|silly] one.",
)


def lie_owned(story: Story) -> None:
    """The hero blames another, cannot bear it and tells the truth."""
    mischief = story.pick(_MISCHIEFS)
    story.put(food=story.pick(words.CAKES))
    story.put(blamed=story.fill(mischief.blamed))
    scenes.open_tale(story)
    if mischief.blamed == "{friend}":
        scenes.introduce_friend(story)
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


_PLENTY = (
    "{one_day}, {hero} found a place {place.at} that was full of {fruit}. Nobody else knew about it.",
    "{one_day}, {helper.a} told {hero} to take as many {fruit} as {he} needed, but no more.",
    "{one_day}, {hero} and {friend}, {friend.a}, went to pick {fruit}. There were [more|many more] than they had ever [seen|dreamed of|eaten].",
    "{one_day}, after the great wind, the ground {place.at} was covered with {fruit}.",
)
_TAKES = (
    "One basket would have been enough. {hero} took two, and then a third, and filled {his} [hat|boots|bag] as well.",
    "{hero} ate some and packed some and put the rest in {his} [pockets|bag|hat], until {he} could hardly [walk|stand|breathe].",
    "{hero} wanted them all. {he} filled everything that could be filled, even {his} [boots|hat|socks].",
    "{hero} picked and picked, and when the basket was full, {he} [sat on it|jumped on it|shook it] to make more room.",
)
_ASKED_FOR_SOME = (
    "On the way home {he} met {guest.a}, who asked for just one or two.",
    "{guest.a} came by and looked at all the {fruit} with hungry eyes.",
    "{guest.a} had come too late and asked if {hero} could spare a few.",
)
_GUESTS = (
    ("a small sparrow", "the sparrow"), ("a thin hare", "the hare"), ("an old woman", "the old woman"),
    ("an old crow", "the crow"), ("a mother hen", "the hen"), ("a young deer", "the deer"), ("a tired ant", "the ant"),
    ("a hungry boy", "the boy"), ("a barefoot girl", "the girl"), ("a ragged traveler", "the traveler"),
)  # fmt: skip
_NO_LINES = ("No. They are mine", "Go and find your own", "I need every one of them", "I was here first", "There are not enough")
_TROUBLES = (
    ("On the bridge the bag tore, and all the {fruit} fell into the river with a plop, plop, plop.",
     "{hero} looked down at the water. There was nothing left to share, not even with {himself}."),
    ("The basket was so heavy that {he} fell [over backward|on {his} nose|over a stone], and everything rolled [down the hill|into the mud|into the stream].",
     "{hero} sat there with an empty basket on {his} head."),
    ("At home {he} ate until {he} could eat no more, and then {he} ate the rest.",
     "That night {his} tummy hurt so much that {he} could not even lie down."),
    ("{he} hid everything in a [deep hole|hollow tree|dark corner]. When {he} came back, there was only [mud|dust|a worm] and a bad smell.",
     "Not one of them was [good|left]. {hero} had wanted [all of them|everything], and now {he} had [none|nothing]."),
    ("{he} put it all into the little boat, and the boat sank right under {him}.",
     "{hero} stood there with water up to {his} chin and watched the {fruit} float away."),
)  # fmt: skip
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
    "They made {food.a} out of what was left, and it was enough for everybody.",
)


def took_too_many(story: Story) -> None:
    """The hero wants more than enough, loses it all and learns to share."""
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


@dataclass(frozen=True)
class _Boast:
    """Something big that is claimed, how the claim grows, how it is put to the test, and the small truth behind it."""

    claim: str
    grows: str
    test: str
    truth: str
    really: str


_BOASTS = (
    _Boast("I once caught a fish as big as a boat", "By noon the fish was as big as a house, and it could sing",
           "Everyone came down to the lake with pots and spoons and waited for {hero} to catch another",
           "It was a very small fish, and it got away", "But {he} knew where the frogs sang, and {he} showed them that"),
    _Boast("I can jump over the river", "By noon people said that {hero} could jump over the church",
           "The whole village stood on the bank to watch",
           "I can only jump over puddles, and not the big ones",
           "But nobody could walk on their hands the way {hero} could, and soon they all tried it"),
    _Boast("I have a dragon's egg at home", "By noon there were two dragons, and one of them breathed fire",
           "Everyone stood in front of {hero}'s door and wanted to see the egg",
           "It is only a big round stone. I painted it green",
           "But it was so well painted that they all wanted one, and {hero} painted stones until supper"),
    _Boast("I am not afraid of anything", "By noon people said that {hero} had chased away three wolves",
           "They asked {hero} to go into the dark cave and look for the lost goat",
           "I am afraid of the dark, and of wolves, and of that cave",
           "Then {friend} said the same, and so did the others, and they all went in together, side by side"),
    _Boast("I can make it rain whenever I like", "By noon people had come with their empty buckets",
           "They stood in the dry field and looked at {hero}, and then at the sky",
           "I cannot make rain. I only wanted to be important",
           "But {hero} carried water from the well until dark, and the next day the rain came anyway"),
    _Boast("I can talk to the bees", "By noon they said that the queen of the bees came to tea with {hero}",
           "A hundred bees sat on the church door, and they sent for {hero}",
           "I do not know one word of it. I just like to hum",
           "But {he} hummed so softly that the bees did fly away, and nobody ever knew why"),
)  # fmt: skip

_BOASTS_BEGIN = (
    "{one_day}, the others were telling stories, and {hero} wanted to have the best one.",
    "{one_day}, {friend} told everyone about a long trip. {hero} had never been anywhere.",
    "{one_day}, nobody was listening to {hero}. So {he} said something louder.",
    "{one_day}, {hero} sat {place.at} with the others, and everyone but {him} had something to tell.",
)
_EYES = (
    "All eyes went wide.",
    "For a moment it felt wonderful.",
    "Nobody laughed. They believed every word.",
    "{friend} told the [baker|miller|postman], and soon everyone knew.",
)
_CANNOT = (
    "{hero} had never wanted so much to be [a mouse in a hole|a worm in the ground|very far away].",
    "{hero} looked for a way out, but there were [people|eyes|friendly faces] on every side.",
    "{he} thought of [running away|being ill]. {he} thought of a new lie, and then a bigger one.",
    "{his} mouth was dry as dust.",
)
_BOAST_LAUGH = (
    "It was very quiet. Then [somebody|{friend}|an old man] began to laugh, and it was a [friendly|warm|kind] laugh.",
    "Some of them were cross, [but not for long|but they had to smile].",
    '"Well," said {friend}. "That was the best story of the day."',
    "Nobody said a word, until [the baker|the miller|an old man] coughed and asked if there was any {food_noun}.",
)
_BOAST_ENDS = (
    "After that, {hero} still told stories. But {he} always began with the words, it is not true, but it is [good|funny|long].",
    "And people liked the [true|small|quiet] {hero} much better than the [big|loud] one.",
    "A true [thing|word|story] may be small, but you can [stand on it|keep it|build a house on it].",
    "From then on, {he} only [said what {he} could show|told what {he} had seen|said half as much].",
)


def boast(story: Story) -> None:
    """A big claim grows until it is put to the test, and the truth turns out to be enough."""
    big = story.pick(_BOASTS)
    story.put(boast=big, food_noun=story.pick(("cake", "soup", "pie", "bread and cheese")))
    scenes.open_tale(story)
    scenes.introduce_friend(story)
    story.paragraph(chance=0.8)
    story.say(_BOASTS_BEGIN)
    story.speak("hero", (big.claim,), SAY)
    story.say(_EYES, chance=0.8)
    story.say((f"{big.grows}.",))
    story.paragraph(chance=0.6)
    story.say((f"{big.test}.",))
    story.say(_CANNOT)
    story.speak("hero", (big.truth,), WHISPER)
    scenes.feel_sorry(story, chance=0.4)
    story.say(_BOAST_LAUGH)
    story.paragraph(chance=0.4)
    story.say((f"{big.really}.",))
    story.say(_BOAST_ENDS)
    scenes.close_tale(story, chance=0.3)
