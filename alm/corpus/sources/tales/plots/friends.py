"""Tales of friends: a quarrel made up, a new friend won, a sick friend cheered."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes, words
from alm.corpus.sources.tales.story import ADVISE, ASK, CROSSLY, GLADLY, KINDLY, REPLY, SADLY, SAY, Story


@dataclass(frozen=True)
class _Quarrel:
    """What two friends can fall out over: how it starts, what each shouts, and how it is put right at the end."""

    start: tuple[str, ...]
    hero_line: str
    friend_line: str
    mended: tuple[str, ...]


_QUARRELS = (
    _Quarrel(
        ("{one_day}, the two found {thing.a} {spot_1} {place.at}. They both reached for it.",
         "{one_day}, they were playing {place.at} when something {thing.look} caught the light. It was {thing.a}!"),
        "I saw it first", "But I picked it up",
        ("They took turns with the {thing.noun}, one day here and one day there.",
         "They found out that {thing.the} belonged to {helper.a} and gave it back together.",
         "They hung {thing.the} on a tree by the road, so that it belonged to both of them."),
    ),
    _Quarrel(
        ("{one_day}, they raced to [the old wall|the last tree|the well]. They got there at nearly the same time.",
         "{one_day}, they ran [down the hill|around the pond] to see who was faster. It was very, very close."),
        "I won", "No, I won",
        ("They ran once more, [with one leg each tied together|holding on to each other], and nobody could say who won.",
         "After that, they raced the [wind|clouds], and they always came in last together."),
    ),
    _Quarrel(
        ("{one_day}, they built a [tower|castle|house] {place.at}. {hero} wanted it round, and {friend} wanted it tall.",
         "{one_day}, they made a [castle|tower|house] out of [stones|mud|sticks]. {hero} wanted to make it taller, but "
         "{friend} wanted to make it bigger."),
        "My way is better", "You never listen to me",
        ("They built it again, half of it one way and half of it the other, and it was better than before.",
         "This time they asked each other before every [stone|step], and it stood until [winter|the next storm]."),
    ),
    _Quarrel(
        ("{one_day}, {friend} took {hero}'s {thing} home for the night. It came back [wet and dirty|covered with mud].",
         "{one_day}, {friend} played with {thing.the} that {hero} loved, and left it out in the rain."),
        "You said that you would take care of it", "But I did not mean to do it",
        ("They washed the {thing.noun} together until it looked like new, or almost.",
         "{friend} gave {him} a [drawing|flower] to make up for the {thing.noun}, and {hero} put it on the wall."),
    ),
    _Quarrel(
        ("{one_day}, {friend} waited and waited {place.at}, but {hero} had forgotten all about their picnic.",
         "{one_day}, {hero} went off to play with somebody else and forgot that {friend} was waiting {place.at}."),
        "I only forgot", "I waited all day for you",
        ("The next day {hero} was the first to come, with {food.a} in a basket.",
         "They had their picnic after all, and {hero} brought {food.a}."),
    ),
    _Quarrel(
        ("{one_day}, they shared {food.a}. One piece was left, and both of them wanted it.",
         "{one_day}, there was {food.a} to share, and {friend} cut it. One piece was [much|a little] bigger."),
        "You always take the big one", "That is not fair",
        ("From then on, one of them cut, and the other one took the first piece.",
         "They broke the last piece in two, and each gave the other the bigger half."),
    ),
)  # fmt: skip

_WORSE = (
    "They pulled and pushed until both of them sat in the mud.",
    "One angry word led to another.",
    "They shouted so loud that the [birds|crows] flew away.",
    "Then they both said things that they did not mean.",
)
_PARTINGS = (
    "{friend} turned around and went {way_1} without looking back.",
    "{hero} [ran|went] home and shut the door with a bang.",
    "{friend} went [one way|left|home], and {hero} [went the other|went right|stayed behind alone].",
    '"I will never [play with you|talk to you|share with you] again," said {friend}, and {friend.he} was gone.',
)
_ALONE = (
    "{hero} tried to play alone, but [who would hold the other end of the rope|nobody laughed at the jokes|hide and "
    "seek is no good for one].",
    "{hero} went to {place.the}, but it was [only a place|too quiet] without {friend}.",
    "{hero} built a [tower|boat|house of sticks], and there was no one to show it to.",
    "{hero} saw a cloud that looked like a [whale|goat in a hat] and turned to tell {friend}, but {friend} was not there.",
    "That day even {hobby} was no fun.",
)
_ADVICE = (
    "What do you want more, to be right or to have a friend?",
    "Somebody has to say sorry first, and it may as well be you",
    "Anger is like rain. It feels long, but it stops",
    "I think there is someone who feels just as sad as you",
    "There are many good days, but there is only one {friend}",
)
_TURNS = (
    "So {hero} took [a deep breath|{his} hat] and set out for {friend}'s home. [Halfway there|On the bridge|At the corner] {he} met {friend}, who was on the way "
    "to {his} home.",
    "The next morning {he} went {way_2} and knocked at {friend}'s door. It opened [at once|before {he} could knock twice|as if somebody had been waiting].",
    "{hero} walked {way_2}, practicing what to say. But there was {friend}, sitting [on the wall|by the gate|under a tree], all alone.",
    "[In the evening|Before supper|The next day] there was a knock at the door. It was {friend}, [looking at {friend.his} feet|with a flower|with wet eyes].",
)
_SORRY_LINES = (
    "I am sorry. I was wrong",
    "I am sorry that I shouted",
    "I missed you. I am sorry",
    "I do not want to be right. I want to be friends",
)
_SORRY_TOO = ("I am sorry, too", "So did I, and so am I", "I missed you every minute", "Let us never do that again")
_BOTH = (
    '"I am sorry!" they said, both at the same time. Then they had to laugh.',
    "They both began to talk at once, and stopped, and began again, and then they laughed until they had to sit down.",
)
_STILL_FRIENDS = (
    "They still shouted now and then, but never for long.",
    "And if they ever fell out again, it was over by supper.",
    "{hero} and {friend} walked home side by side, talking all the way.",
    "Being friends again felt like coming in from the cold.",
    "Everyone could hear them laughing, all the way to {place.the}.",
)


def quarrel(story: Story) -> None:
    """Two friends fall out, are lonely, and make up."""
    scenes.choose_thing(story)
    story.put(food=story.pick(words.CAKES))
    over = story.pick(_QUARRELS)
    scenes.open_tale(story)
    scenes.introduce_friend(story)
    story.paragraph()
    story.say(over.start)
    story.speak("hero", (over.hero_line,), CROSSLY)
    story.speak("friend", (over.friend_line,), CROSSLY)
    story.say(_WORSE, chance=0.6)
    story.say(_PARTINGS)
    story.paragraph(chance=0.8)
    story.say(_ALONE)
    scenes.feel_lonely(story, chance=0.6)
    story.speak("elder", _ADVICE, ADVISE, chance=0.6)
    story.paragraph(chance=0.6)
    story.say(_TURNS)
    _make_up(story)
    story.say(over.mended)
    story.say(_STILL_FRIENDS, chance=0.7)
    scenes.close_tale(story, chance=0.15)


def _make_up(story: Story) -> None:
    if story.happens(0.3):
        story.say(_BOTH)
        return
    story.speak("hero", _SORRY_LINES, SADLY)
    story.speak("friend", _SORRY_TOO, GLADLY)


_ARRIVALS = (
    "{one_day}, a cart full of [boxes|pots|straw] stopped in front of the empty house next door, and "
    "{friend.a} climbed down.",
    "{one_day}, there was somebody new {place.at}. It was {friend.a}, sitting alone {spot_1}.",
    "{one_day}, {hero} saw {friend.a} {place.at}. Nobody knew where {friend.he} came from.",
    "{one_day}, a new family came to live {near}. They had {friend.a} with them.",
)
_STRANGE = (
    "The newcomer [wore a coat that was much too big|had a hat with a hole in it|carried a big green bag] and did not "
    "say a word.",
    "The newcomer looked at everyone with big eyes and hid {spot_3}.",
    "The newcomer spoke [so softly|so fast|such strange words] that nobody could understand.",
    "The newcomer drew [lines|circles|stars] in the [dust|sand] with a stick and did not look up.",
)
_OTHERS = (
    "The others ran past and did not stop.",
    'Nobody said "come and play," because nobody had thought of it.',
    "Some of the others laughed, and that made it worse.",
    "{hero} felt shy, too, and walked on. But {he} thought about it all evening.",
)
_FIRST_TRIES = (
    "{hero} [waved|smiled], but the newcomer only looked [away|down|at the ground].",
    "{hero} said hello, but {he} said it so [fast|softly] that it sounded like a [sneeze|mouse].",
    "{hero} rolled [a ball|an apple] across the grass. It rolled back, very [slowly|softly], and that was all.",
    "{hero} told {his} best joke. Nobody laughed.",
)
_GIFTS = (
    "So the next morning {hero} left [{food.part}|a flower|a white stone] {spot_2} and [went|ran] away.",
    "Then {hero} had an idea. {he} left [{food.part}|a red apple|a paper boat] {spot_2}, with a note that said hello.",
)
_ANSWERS = (
    "When {he} came back, [it was gone|nothing was left of it]. In its place lay [a blue feather|a shiny button|a tiny boat made of bark].",
    "In the evening something [else|new] lay [there|in the same place]. It was [a drawing of a cat|a ring made of grass|a nut with a face].",
)
_NAME_LINES = (
    "I am {hero}. What is your name?",
    "Hello. My name is {hero}. Do you want to play?",
    "I am {hero}, and I live [right over there|near the mill|behind the hedge]. Who are you?",
)
_NAME_ANSWERS = (
    "My name is {friend}, and I do not know anyone here",
    "I am {friend}. I was afraid that nobody would ask",
    "{friend}. I miss my old home a little",
    "I am {friend}. I thought you would never come back",
)
_TALENTS = (
    "It turned out that {friend} could [whistle like any bird|walk on {friend.his} {friend.hands}|juggle four apples|"
    "paint anything in the world|tell stories about the sea].",
    "{friend} knew a game that nobody had ever played, and soon [they were all|everyone was] playing it.",
    "{friend} could [run like the wind|climb like a cat|swim like a fish], and {hero} could [hide like a mouse|think like a fox|jump like a frog], so they made a [good|perfect] team.",
    "{hero} showed {friend} {place.the}, and {friend} showed {him} how to [skip a stone|make a flute out of grass].",
)
_FRIENDS_NOW = (
    "By evening {hero} could not remember how it had been without {friend}.",
    "From then on, if you saw one of them, the other was never far.",
    "Soon the others came over, one by one, and {friend} was never alone again.",
    "When [the next newcomer came|somebody new came again], {friend} was the first to [say hello|smile|run and meet them].",
    "The big [shy|sad] eyes were not [shy|sad] any more, and {friend} laughed [louder|longer] than anyone.",
)


def new_friend(story: Story) -> None:
    """Somebody new is shy, and the hero finds a way to say hello."""
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_ARRIVALS)
    story.say(_STRANGE)
    story.say(_OTHERS, chance=0.7)
    story.paragraph(chance=0.8)
    story.say(_FIRST_TRIES)
    story.speak("elder", ("Give it time. Shy birds come when you sit still", "A small gift is a kind of hello",
                          "It is hard to be new. Try again tomorrow"), KINDLY, chance=0.5)  # fmt: skip
    if story.happens(0.7):
        story.say(_GIFTS)
        story.say(_ANSWERS)
        story.paragraph(chance=0.5)
    else:
        story.say(("The next day {hero} tried again, and sat down close by.", "But {hero} did not give up."))
    story.speak("hero", _NAME_LINES, KINDLY)
    story.put(newcomer="the newcomer")
    story.speak("newcomer", _NAME_ANSWERS, REPLY)
    scenes.feel_glad(story, chance=0.3)
    story.say(_TALENTS)
    story.say(_FRIENDS_NOW)
    scenes.close_tale(story, chance=0.2)


_ILLNESSES = (
    "had a bad cold",
    "had a hot head and cold feet",
    "had hurt {friend.his} foot",
    "had red spots all over",
    "had a fever",
    "had eaten too many green apples",
)
_EVENTS = ("fair", "picnic", "flower show", "parade", "boat race", "puppet show", "harvest dance", "treasure hunt")
_MISSES = (
    "{one_day}, the {event} was about to begin, but {friend} {illness} and had to stay in bed.",
    "{one_day}, everyone was getting ready for the {event}. But {friend} {illness}, and the doctor said to stay in bed.",
    "On the day of the {event}, {friend} {illness}. {friend.he} could not go.",
    "{hero} and {friend} had talked about the {event} for weeks. But when the day came, {friend} {illness}.",
)
_SICK_LINES = (
    "Go without me",
    "You go, and tell me all about it",
    "I wanted to see it so much",
    "Now I will miss everything",
)
_WRONG_CHEERS = (
    "First {hero} brought a drum and played a song. It made {friend}'s head hurt.",
    "First {he} brought a big bunch of flowers, and {friend} sneezed seven times.",
    "First {he} tried to be funny and fell over the chair. The soup was everywhere.",
    "First {he} sang all the songs {he} knew. Next door, a dog began to cry.",
    "First {hero} sat by the bed and sighed, and that made both of them sadder.",
)
_IDEAS = (
    "Then {hero} had an idea. If {friend} could not go to the {event}, the {event} would have to come to {friend}.",
    "{hero} went to the {event} alone, but all the time {he} thought of the little room with the closed window.",
    "{hero} did not want to [go|have fun] alone. {he} [sat on the step|lay in the grass|walked up and down] and thought, and then {he} ran to find {elder}.",
)
_CHEERS = (
    "{he} filled a basket with [a paper flag|a red balloon|a bag of nuts|a bell], {food.part} and a leaf from "
    "{place.the}.",
    "{he} asked everyone to come by, and they [danced|walked] past {friend}'s window, one after another.",
    "{he} drew the whole {event} on a long piece of paper, with every [flag|hat|dog] in it.",
    "{he} made puppets out of socks and put on a show at the end of the bed.",
    "{he} tied a string from {friend}'s window to {his} own, and they wrote each other letters all day.",
    "{he} stood [under the window|at the end of the bed] and told the whole story, and {he} played [every part|all of it, even the dog,] {himself}.",
)
_LAUGHS = (
    "{friend} [laughed|smiled|sat up] for the first time in [days|a week].",
    "{friend} sat up in bed and clapped.",
    "{friend}'s [cheeks|ears] turned pink, and it was not from [the fever|being ill].",
    "{friend} forgot to feel ill until it was dark.",
)
_FRIEND_THANKS = (
    "This is better than the real {event}",
    "I did not miss anything after all",
    "You are better than any doctor",
    "Now I feel well already",
)
_WELL = (
    "[A few days later|The next week] {friend} was well again, and then it was {hero} who had a cold. {friend} came with "
    "[soup|{food.part}] and [sock puppets|a bag of jokes|paper stars].",
    "By the end of the week {friend} was up, and the two ran {way_1} as if they had never been still.",
    "When {friend} was well, they kept [the basket|the pictures|one of the letters] to remember that day.",
    "Soon {friend} was well, and they had a {event} of their own {place.at}.",
)


def sick_friend(story: Story) -> None:
    """A friend is ill and misses a great day, and the hero brings the day to the bed."""
    story.put(illness=story.fill(story.pick(_ILLNESSES)), event=story.pick(_EVENTS))
    scenes.open_tale(story)
    scenes.introduce_friend(story)
    story.paragraph(chance=0.8)
    story.say(_MISSES)
    story.speak("friend", _SICK_LINES, SADLY)
    scenes.feel_sad(story, chance=0.4)
    story.paragraph(chance=0.5)
    story.say(_WRONG_CHEERS, chance=0.6)
    story.speak("elder", ("What would you like if you were ill?", "Try again, but more softly",
                          "You know {friend} best. You will think of something"), ADVISE, chance=0.4)  # fmt: skip
    story.say(_IDEAS)
    for cheer in story.several(_CHEERS, 2 if story.happens(0.4) else 1):
        story.say((cheer,))
    story.paragraph(chance=0.6)
    story.say(_LAUGHS)
    story.speak("friend", _FRIEND_THANKS, GLADLY)
    story.say(_WELL)
    scenes.close_tale(story, chance=0.2)
