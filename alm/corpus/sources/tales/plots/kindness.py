"""Tales of kindness: a stranger helped, food shared, somebody pulled out of a tight place."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import GLADLY, KINDLY, REPLY, SADLY, SAY, Mention, Story

_STRANGERS = (
    ("an old man", "the man"), ("an old woman", "the woman"), ("a thin old donkey", "the donkey"),
    ("a gray old goose", "the goose"), ("a tired traveler", "the traveler"), ("a tired old goat", "the goat"),
    ("a small woman in a green coat", "the woman"), ("a man with a big gray hat", "the man"),
    ("an old horse with one white ear", "the horse"),
)  # fmt: skip
_LOADS = (
    ("a heavy sack of flour", "the sack"), ("a heap of wood", "the wood"), ("a cart with a broken wheel", "the cart"),
    ("a box that was much too big", "the box"), ("two buckets full of water", "the buckets"),
    ("a ladder with a pot at each end", "the ladder"), ("a basket full of stones", "the basket"),
)  # fmt: skip
_HURRIES = (
    "{one_day}, {hero} was in a hurry. There was a [puppet show|fair|picnic] {place.at}, and {he} did not want to be late.",
    "{one_day}, {hero} was on the way to {place.the}, [whistling|thinking of {food.a}|running as fast as {he} could].",
    "{one_day}, {elder} sent {hero} to {place.the} with a letter.",
    "{one_day}, {hero} was going {way_1} with {food.a} in {his} bag.",
)
_SEES_STRANGER = (
    "Beside the road {he} saw {stranger.a} with {load.a}.",
    "At the foot of the hill stood {stranger.a}, pulling at {load.a}.",
    "There, in the hot sun, sat {stranger.a} beside {load.a}.",
    "{way_2} came {stranger.a}, struggling with {load.a}.",
)
_OTHERS_PASS = (
    "A farmer went by and did not even look.",
    "Two others had walked past already, looking the other way.",
    "A fine cart rolled past and left only dust.",
    "Everyone else was too busy to stop.",
)
_HESITATES = (
    "{hero} thought of how late it was. Then {he} thought of those tired eyes, and {he} stopped.",
    "{hero} walked past, ten steps, eleven, twelve. Then {he} turned around.",
    "{hero} did not think about it for very long.",
    "If {he} stopped now, {he} would be late. {he} stopped.",
)
_OFFERS = (
    "May I help you with that?",
    "That looks heavy. Let me take one end",
    "You look tired. Sit down and let me try",
    "I am not very strong, but two can do more than one",
)
_STRANGER_ANSWERS = (
    "You are the first one who asked",
    "It is a long way, little one. Are you sure?",
    "How kind of you. My back is not what it was",
    "Nobody has talked to me all day",
)
_WORK = (
    "So {hero} [pushed|pulled] and {stranger.the} [pulled|pushed], {way_1} and {way_3}.",
    "It was hard work. {hero} had to rest three times, and each time {stranger.the} told {him} a story.",
    "{hero} took hold of {load.the} and did not let go until {his} {hero.hands} hurt.",
    "They shared {food.part} and the work, and the way seemed shorter than it was.",
    "Once they nearly lost everything in the ditch, but {hero} held on with both {hero.hands}.",
)
_ARRIVES = (
    "At last they came to a [tiny|crooked|white] house with a [blue|green|round] door.",
    "The sun was low when they came to [the top of the hill|the last house|a gate in a long wall].",
    "In the end they reached the place, and {stranger.the} took a long breath.",
)
_REWARDS = (
    ("{stranger.the} gave {him} a [small|gray|round] seed and a smile.",
     "{hero} planted it by the door, and in the spring it grew into a rose bush with flowers of every color."),
    ("{stranger.the} gave {him} a plain wooden whistle.",
     "Years later, lost in the fog, {hero} blew it once, and a gray bird came and led {him} home."),
    ("{stranger.the} sang {him} a song with only three words.",
     "Whenever {hero} sang it, even the loudest baby stopped crying."),
    ("{stranger.the} had nothing to give but a smile and a good word.",
     "{hero} carried that good word home, and it was not heavy at all."),
    ("{stranger.the} opened a little bag and gave {him} an old coin with a hole in it.",
     "{hero} wore it on a string and gave it, one day, to someone who had helped a stranger."),
    ("{stranger.the} put up a little table and took three puppets out of a box.",
     "The whole village came to see the show, and {hero} got the best seat."),
    ("{stranger.the} pointed to a path that nobody knew.",
     "{hero} followed it and came to a hill full of berries, sweet and warm from the sun."),
)  # fmt: skip
_STRANGER_ENDS = (
    "After that, {hero} never passed [anyone|an old man|a heavy cart] on the road without [asking|stopping|saying hello].",
    "When {hero} came home, {elder} asked why {he} was late, and then {elder} was proud.",
    "If {hero} had [been in time|walked on|looked away] that day, {he} would have missed the best [part of it|day of the year].",
    "And when {hero} was [tired|wet|hungry] and far from home {himself}, somebody always [stopped|came by|helped].",
)


def stranger_helped(story: Story) -> None:
    """The hero is in a hurry and stops for a stranger all the same."""
    stranger, load = story.pick(_STRANGERS), story.pick(_LOADS)
    story.put(stranger=Mention(*stranger), load=Mention(*load), other=stranger[1])
    gift, later = story.pick(_REWARDS)
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_HURRIES)
    story.say(_SEES_STRANGER)
    story.say(_OTHERS_PASS, chance=0.6)
    story.say(_HESITATES, chance=0.7)
    story.paragraph(chance=0.6)
    story.speak("hero", _OFFERS, KINDLY)
    story.speak("other", _STRANGER_ANSWERS, REPLY, chance=0.7)
    for work in story.several(_WORK, 2 if story.happens(0.5) else 1):
        story.say((work,))
    story.paragraph(chance=0.6)
    story.say(_ARRIVES)
    story.say((gift,))
    story.say((later,))
    story.say(_STRANGER_ENDS)
    scenes.close_tale(story, chance=0.2)


_HAS_FOOD = (
    "{one_day}, {elder} gave {him} {food.a} to take along.",
    "{one_day}, {hero} made {food.a}, all alone, for the very first time.",
    "{one_day}, {hero} spent {his} only coin {place.at} and bought {food.a}.",
    "{one_day}, {hero} won {food.a} at the fair, and it was the finest that {he} had ever seen.",
)
_WANTS_ALL = (
    "{he} had not eaten since the day before, and {his} tummy [made a noise|sounded like a bear].",
    "It smelled so good that {he} wanted to eat [it all at once|all of it, right there|every bit of it alone].",
    "{he} found a quiet spot {place.at}, where nobody would ask for any.",
    "{he} carried it {way_1}, and with every step it smelled better.",
)
_HUNGRY = (
    ("a thin kitten", "the kitten"), ("a hungry crow", "the crow"), ("an old sailor", "the sailor"),
    ("a little ant", "the ant"), ("a lost puppy", "the puppy"), ("a shy deer", "the deer"),
    ("two small sparrows", "the sparrows"), ("a lonely goat", "the goat"), ("a thin old woman", "the old woman"),
    ("a cold mouse", "the mouse"), ("a ragged traveler", "the traveler"), ("an old toad", "the toad"),
)  # fmt: skip
_FIRST_GUEST = (
    "{hero} was just about to take a bite when {guest.a} came [out of the grass|up the path|around the corner].",
    "Then {he} saw {guest.a}, looking at {food.the} with big eyes.",
    "Before the first bite, {he} heard a [sigh|small noise|little cough]. There [sat|stood] {guest.a}.",
)
_GUEST_LINES = (
    "I have not eaten all day",
    "That smells like my mother's kitchen",
    "Could you spare a little?",
    "Do not mind me. I am only looking",
    "I used to have a whole one, long ago",
)
_SHARES = (
    "{hero} looked at {food.the}, and then {he} broke it in two.",
    "{hero} wanted to say no. But {he} said yes.",
    "It was not easy. Still, {hero} held out a [big|nice|warm] piece.",
    "{hero} made room on the [stone|log|grass] and shared.",
)
_SHARE_LINES = ("Half for you and half for me", "Take some. There is enough for two", "Sit down and eat with me",
                "It is better when you are not alone")  # fmt: skip
_SECOND_GUEST = (
    "Then along came {guest_2.a}, hungry as well. The piece got smaller again.",
    "But {he} had not gone far when {he} met {guest_2.a}. {hero} [sighed|looked at the sky], and smiled, and shared once more.",
    "Soon {guest_2.a} came, too, because good smells go far. There was a bit for everyone.",
)
_LITTLE_LEFT = (
    "In the end, only [a few|three|seven] crumbs were left for {hero}.",
    "What was left would not have filled a [mouse|spoon|very small bird].",
    "{hero} licked {his} {hero.hands} and walked home, still a little hungry.",
    "At last {hero} ate what was left, [very slowly, to make it last|and it was not much|crumb by crumb].",
)
_RETURNS = (
    "[That evening|Before bedtime|Late that day] there was a knock at the door. There stood {guest.the} with [a basket of plums|a pot of honey|a bag "
    "of nuts], and behind came all the others.",
    "The next day {hero} found [a heap of nuts|a bowl of berries|a comb of honey] on the step. Nobody had to [tell {him} who "
    "it was from|say where it came from].",
    "In the winter, when {hero} had nothing left, {guest.the} came through the snow with {food.a}, just as big as the "
    "first one.",
    "A week later {hero} lost the way in the woods, and it was {guest.the} who found {him} and brought {him} home for "
    "supper.",
)
_SHARED_ENDS = (
    "They ate and sang until the stars came out.",
    "It was the best meal that {hero} ever had, and there was enough for everyone.",
    "Half of [something|a cake|an apple] with a friend is more than all of it alone, {hero} thought.",
    "And from that day on, {hero} always cut one piece too many, just in case.",
    "Nobody went to bed hungry that night.",
)


def shared_food(story: Story) -> None:
    """The hero is hungry and shares all the same, and it comes back."""
    guests = story.several(_HUNGRY, 2)
    story.put(guest=Mention(*guests[0]), guest_2=Mention(*guests[1]), other=guests[0][1])
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_HAS_FOOD)
    story.say(_WANTS_ALL)
    story.paragraph(chance=0.5)
    story.say(_FIRST_GUEST)
    story.speak("other", _GUEST_LINES, SADLY, chance=0.8)
    story.say(_SHARES)
    story.speak("hero", _SHARE_LINES, KINDLY, chance=0.8)
    story.say(_SECOND_GUEST, chance=0.65)
    story.say(_LITTLE_LEFT)
    story.paragraph(chance=0.8)
    story.say(_RETURNS)
    scenes.feel_glad(story, chance=0.4)
    story.say(_SHARED_ENDS)
    scenes.close_tale(story, chance=0.2)


@dataclass(frozen=True)
class _Stuck:
    """Somebody or something in a tight place: who and how, what a clever head does about it, and how it comes free."""

    who: str
    how: str
    idea: str
    free: str


_STUCK = (
    _Stuck("the farmer's cow", "had walked into the mud and was stuck up to its tail",
           "{he} put flat boards under its feet and held out a bunch of clover",
           "There was a long, wet sound, and out came the cow."),
    _Stuck("the old goat", "had put its head through the fence and could not get it back",
           "{he} put a feather under its nose, and the goat had to sneeze",
           "Out came the head, and the goat sat down in surprise."),
    _Stuck("the miller's cart", "had rolled into the ditch with all its sacks",
           "{he} took off the sacks, one by one, until the cart was light",
           "The wheels turned, and up came the cart."),
    _Stuck("the fisherman's boat", "lay high on the sand, and the sea was far away",
           "{he} put wet leaves in front of it, all the way to the water",
           "The boat rolled, and slid, and swam."),
    _Stuck("a young whale", "lay on the beach, and the sun was getting hot",
           "{he} dug a little ditch down to the sea, and the water came in",
           "With the next wave, the whale was free, and it blew water high into the air."),
    _Stuck("the church bell", "had fallen from its place and would not ring",
           "{he} put a long log under it and sat down on the other end",
           "Up went the bell, and it rang with a deep, happy sound."),
    _Stuck("a fat old pig", "was stuck under the gate and cried like a train",
           "{he} rubbed its tummy with soap",
           "The pig slid out like a fish."),
    _Stuck("a turnip as big as a cart", "would not come out of the ground, not even a little",
           "{he} put a bucket of water around it, so that the ground grew soft",
           "The turnip flew out, and everyone fell down in a row."),
)  # fmt: skip

_STUCK_NEWS = (
    "{one_day}, there was [shouting|a great noise] {way_1}. {stuck.who} {stuck.how}.",
    "{one_day}, everybody ran {way_1} to see what had happened. {stuck.who} {stuck.how}.",
)
_STUCK_YOUNG = (
    "{hero} was the youngest of all, and nobody [asked {him} for help|asked what {he} thought|listened to {him}].",
    "[Day after day|Again and again] people told {hero} that {he} was too young.",
    "Nobody thought that {hero} [could be of any use|knew much|could help], and {hero} was not sure either.",
    "People liked {hero}, but they did not think that {he} was [strong|clever|big enough to help].",
)
_STUCK_PAIRS = (
    "There stood {helper.a} and {friend}, {friend.a}, not knowing what to do.",
    "{helper.a} was there already, and soon {friend}, {friend.a}, came as well.",
    "{friend}, {friend.a}, ran to get a rope, and {helper.a} came along to help.",
)
_STUCK_PULLS = (
    "{helper} pulled. {friend} pulled. Nothing moved.",
    "First {helper} tried alone. Then {friend} took hold as well. They pulled until their faces were red.",
    "They tied a rope and pulled, all in a row, {helper} in front and {friend} at the end. The rope broke.",
    "{friend} pushed from behind and {helper} pulled from the front. It only got worse.",
    "{helper} shouted and {friend} counted to three, again and again, but it was no good.",
)
_STUCK_OFFERS = ("Let me try", "I have an idea", "May I help?", "What if I try it another way?", "I can do something, too")
_STUCK_REFUSALS = (
    "You are much too young",
    "If we cannot do it, how could you?",
    "This is work for big people",
    "Stand back, little one",
    "Well, it cannot hurt",
)
_STUCK_IDEA = (
    "{hero} did not pull at all. {idea}.",
    "But {hero} looked at it from the left and from the right. Then {idea}.",
    "{hero} had been thinking the whole time. Now {idea}.",
    "While the others sat down to rest, {hero} went to work. {idea}.",
)
_STUCK_EFFORT = (
    "{hero} took hold at the very end, behind all the others. It was only a little bit more, but a little bit was "
    "just what was missing.",
    "{hero} pushed where nobody else could fit. It was not much, but it was enough.",
)
_STUCK_CHEERS = (
    "Everyone [cheered|shouted|clapped] and looked around for {hero}.",
    "For a moment nobody said a word. Then they all [talked|laughed|clapped] at once.",
    "They put {hero} on their shoulders and carried {him} {way_2}.",
    "{friend} threw a [hat|sock|boot] into the air, and it [never came down|came down in a tree|fell on {helper}].",
)
_STUCK_PRAISE = (
    "How did you think of that?",
    "We should have asked you first",
    "You are young, but your ideas are big",
    "Never again will I call you too young",
)
_STUCK_ENDS = (
    "After that, when something was too hard, people said, \"Ask {hero}.\"",
    "{hero} was still young. But nobody talked about that any more.",
    "That evening there was {food.a} for all, and {hero} got the first piece.",
    "It is good to be strong, but it is just as good to think.",
    "When {hero} came home, {elder} said that {he} looked taller than before.",
)


def stuck(story: Story) -> None:
    """Something is stuck, the big ones pull in vain, and the youngest one helps."""
    trouble = story.pick(_STUCK)
    story.put(stuck=trouble, idea=story.fill(trouble.idea))
    scenes.open_tale(story)
    story.say(_STUCK_YOUNG)
    story.paragraph(chance=0.8)
    story.say(_STUCK_NEWS)
    story.say(_STUCK_PAIRS)
    story.say(_STUCK_PULLS)
    story.speak("hero", _STUCK_OFFERS, SAY)
    story.speak("helper", _STUCK_REFUSALS, REPLY, chance=0.7)
    story.paragraph(chance=0.7)
    story.say(_STUCK_IDEA if story.happens(0.75) else _STUCK_EFFORT)
    story.say((trouble.free,))
    story.say(_STUCK_CHEERS)
    story.speak("friend", _STUCK_PRAISE, GLADLY, chance=0.7)
    scenes.feel_proud(story, chance=0.4)
    story.say(_STUCK_ENDS)
    scenes.close_tale(story, chance=0.2)
