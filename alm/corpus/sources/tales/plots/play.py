"""Tales of play: a race, a skill learned, a game of hide and seek."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.story import CRY, GLADLY, GLADLY_CRY, KINDLY, REPLY, SADLY, Shapes, Story

_RACE_BEGINS = (
    "{friend} was the fastest {friend.kind} for miles around, and liked to say so.",
    "{hero} and {friend} could never agree who [was faster|had the longer legs|ran better].",
    "Every year there was a race from the church to {place.the}, and this year {hero} and {friend} wanted to win it.",
    "{one_day}, {friend} laughed at {hero} for being slow.",
)
_RACE_DARES = (
    "I can run twice as fast as you",
    "Let us race to {place.the} and back",
    "You will only see my back",
    "The last one at {place.the} has to carry the other one home",
    "I could win on one leg",
)
_RACE_TAKES = ("We will see about that", "All right, let us run", "Being fast is not everything", "I will try, and that is all")
_RACE_STARTS = (
    "{helper.a} counted to three, and off they went, {way_1} and {way_2}.",
    "Everyone came to watch. A bell rang, and they were off, {way_1}.",
    "{helper.a} dropped a leaf, and when it touched the ground, they ran.",
    "They stood side by side with one foot in front. [One, two, three|The baker clapped], and off they [flew|went|ran].",
)
_RACE_LEADS = (
    "{friend} was soon so far ahead that {hero} could only see [dust|{friend.his} back|something small].",
    "At first they were [side by side|close together], nose to nose.",
    "{hero} fell behind at once, but {he} [kept on|did not stop], step after step.",
    "For once {hero} was in front, and the wind [sang|laughed] in {his} ears.",
)


@dataclass(frozen=True)
class _Turn:
    """What decides a race: what happens, what the hero does, how it ends, and what the friend says then."""

    happens: str
    act: str
    end: str
    lines: Shapes


_RACE_TURNS = (
    _Turn(
        "[At the corner|Near the end|Halfway there] {friend} tripped over a [stone|log] and fell.",
        "{hero} could have run past. But {he} stopped and [held out a stick|sat down beside {friend.him}].",
        "They came in together, [arm in arm|one step at a time], and everyone cheered twice.",
        ("You could have won", "You are good at running, but better at being a friend", "I would rather be last with you than first alone"),
    ),
    _Turn(
        "On the bridge {friend}'s foot got caught between two boards.",
        "{hero} stopped, looked at the goal, and turned back to help.",
        "They walked the last part side by side. Nobody asked who had won.",
        ("You could have won", "I will never call you slow again", "What a friend you are"),
    ),
    _Turn(
        "{friend} was so far ahead that {friend.he} lay down to sleep in the [grass|hay|clover].",
        "{hero} did not stop. Step, step, step, {he} went, [past {friend}|without a sound], on and on.",
        "When {friend} came running, {hero} was already sitting on the wall at the goal.",
        ("I will never sleep in a race again", "How did you do that?", "You are slow, but you do not stop"),
    ),
    _Turn(
        "{friend} was so far ahead that {friend.he} stopped to pick berries, and then some more.",
        "{hero} went by on {his} toes and did not make a sound.",
        "{hero} got there first, by no more than a nose.",
        ("They were very good berries", "How did you get past me?", "Next time I will eat after the race"),
    ),
    _Turn(
        "Then a [duckling|chick|kitten] sat in the middle of the road and cried.",
        "{friend} jumped over it and ran on. {hero} stopped and carried it home, and that took a long time.",
        "{hero} came in last. But everyone had heard what {he} had done, and they cheered for {him} the longest.",
        ("I won, but I think you did, too", "Next time I will stop first", "You won something better than a race"),
    ),
    _Turn(
        "Then they saw an old woman who had dropped all the apples.",
        "{hero} stopped. {friend} ran three more steps, and then {friend.he} stopped as well.",
        "When all the apples were back in the basket, nobody could remember who had been ahead.",
        ("I like apples better than gold", "Let us say that we both won", "I am glad that you stopped"),
    ),
    _Turn(
        "Then it began to rain so hard that they could not see the way.",
        "They slipped and slid and pulled each other up again, and they could not stop laughing.",
        "They came in last of all, brown with mud from nose to toes.",
        ("That was the best race ever", "Let us do that again tomorrow", "I do not even know who was ahead"),
    ),
    _Turn(
        "Then the path ended at a stream that had not been there before.",
        "{hero} knew how to build and {friend} knew how to jump, so they had to go on together.",
        "Nobody was waiting at the goal any more, so they bowed to each other and went home.",
        ("Next time we should be on the same team", "We would make a good team", "I could not have done it alone"),
    ),
)  # fmt: skip

_RACE_ENDS = (
    "They hung the ribbon on a tree, where both could see it.",
    "From then on, they raced every week, and they never kept count.",
    "It is good to be fast, {hero} thought, but it is better to get there together.",
    "{hero} ran home, not to win, but just because running felt so good.",
    "That evening they shared {food.a}, and both got the same.",
)


def race(story: Story) -> None:
    """Two friends race, and something on the way matters more than winning."""
    turn = story.pick(_RACE_TURNS)
    scenes.open_tale(story)
    scenes.introduce_friend(story)
    story.say(_RACE_BEGINS)
    story.paragraph(chance=0.6)
    story.speak("friend", _RACE_DARES, GLADLY)
    story.speak("hero", _RACE_TAKES, REPLY)
    story.say(_RACE_STARTS)
    story.say(_RACE_LEADS)
    story.paragraph(chance=0.8)
    for beat in (turn.happens, turn.act, turn.end):
        story.say((beat,))
    story.speak("friend", turn.lines, GLADLY)
    story.say(_RACE_ENDS, chance=0.8)
    scenes.close_tale(story, chance=0.25)


@dataclass(frozen=True)
class _Skill:
    """Something to learn: why it is wanted, first tries, the trick of it, and the moment it works."""

    verb: str
    wants: Shapes
    fails: Shapes
    tip: Shapes
    works: Shapes


_SKILLS = (
    _Skill("whistle", ("Everyone could whistle, even the baby.", "{he} wanted to call the birds."),
           ("Only air came out, and a bit of soup.", "It sounded like a boot with a hole in it."),
           ("Make your mouth as small as a cherry", "Wet your lips and think of the wind"),
           ("Out came one thin, high note. A bird answered.", "There it was, a real whistle, and a puppy came running.")),
    _Skill("ride a bike", ("There was an old green bike in the shed.", "All {his} friends could do it."),
           ("{he} fell to the left and {he} fell to the right.", "{he} went straight into the hedge."),
           ("Look at where you want to go, not at the ground", "Go a little faster, and do not be afraid"),
           ("All at once the wheels hummed, and the hedge stayed where it was.",
            "{he} went all the way to the well before {he} saw that nobody was holding on.")),
    _Skill("skate", ("The pond was as hard as glass, and everyone was on it.", "{he} had a pair of old skates from {elder}."),
           ("{his} feet went one way, and the rest of {him} went the other.", "{he} sat down more than {he} stood."),
           ("Be soft in the knees and slide, as if you were shy", "Fall ten times. Then it gets better"),
           ("{he} pushed once, and the world slid by without a sound.", "{he} made a whole circle and did not fall.")),
    _Skill("swim", ("In summer the others jumped into the lake like frogs.", "{he} wanted to see the fish from close by."),
           ("{he} kicked and kicked and drank half of the lake.", "{he} sank like a spoon."),
           ("Lie back and let the water hold you", "Be slow and round, like a sleepy whale"),
           ("The water held {him}. {he} swam!", "{he} swam from the dock to the green boat, all alone.")),
    _Skill("bake bread", ("{he} loved the smell of it.", "{he} wanted to make breakfast for everyone."),
           ("The first loaf was as hard as a brick.", "The bread stuck to the table, to the cat and to {him}."),
           ("Give it time. Bread has to sleep", "Turn it and turn it, until your arms hurt"),
           ("This time it rose like the moon, golden and round.", "The whole house smelled of it, and it was gone in a minute.")),
    _Skill("play the fiddle", ("There would be a dance at the end of the summer.", "{he} had heard one once, and never forgot it."),
           ("It sounded like a cat in a bag.", "The neighbors shut their windows, one by one."),
           ("Slowly. One note, and then one more", "Hold it like a bird, not like a hammer"),
           ("One evening it was not noise any more. It was a song.", "{elder} began to tap one foot, and then the other.")),
    _Skill("skip stones", ("{elder} could make a stone jump seven times.", "All the others could do it."),
           ("Plop, and plop, and plop again.", "Every stone went straight to the bottom."),
           ("Find a flat one and keep it low", "Wait until the water is still"),
           ("One jump, two jumps, three, four, five!", "The stone danced across the water as if it would never stop.")),
    _Skill("tie a bow", ("{his} boots were always open.", "{he} was tired of asking for help."),
           ("{he} made a bow so big that it had to be cut.", "{he} tied {his} feet together and fell over."),
           ("Make two ears like a rabbit, and cross them", "One goes around the tree and into the hole"),
           ("There sat a perfect bow, with two ears just the same.", "{he} pulled, and it held, and {he} ran and did not fall.")),
    _Skill("juggle", ("A juggler had come to the fair, with five golden apples.", "{he} had three apples and nothing to do."),
           ("One apple hit the window, and one hit {elder}.", "All of them fell on {his} nose."),
           ("Let go of one before you catch the next", "Do not look at your {hero.hands}. Look up"),
           ("Round and round they went, like little red birds.", "For a whole minute nothing fell.")),
    _Skill("read", ("There was a book at home with a ship on it.", "{he} wanted to know what the letters said."),
           ("The letters stood there like ants and said nothing.", "{he} read a word, and it was the wrong one."),
           ("Say it slowly, and then all in one breath", "Begin with the small words. They hold the door open for the big ones"),
           ("Suddenly the letters said ship, and then they said sea.", "{he} read a whole line, and then another, and it was night.")),
    _Skill("dance", ("Soon there would be a wedding in the village.", "{he} had never danced with anyone but a broom."),
           ("{he} stepped on every foot in the room, twice.", "{he} turned left when everyone turned right."),
           ("Do not count. Listen", "Let the drum tell your feet what to do"),
           ("Then the music got into {his} knees, and they knew what to do.", "{he} turned and turned, and no toes were hurt.")),
)  # fmt: skip

_SKILL_BEGINS = (
    "There was one thing that {hero} could not do. {he} could not {skill.verb}.",
    "More than anything, {hero} wanted to learn to {skill.verb}.",
    "{one_day}, {hero} made up {his} mind to learn to {skill.verb}.",
    "{one_day}, {hero} saw {friend}, {friend.a}, {skill.verb} as if it were nothing, and {he} wanted to do it, too.",
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
    "It had been hard for so long, and now it was as easy as [breathing|eating|falling asleep].",
    "Whenever something is hard, {hero} thinks of that day and tries once more.",
    "And {elder}, who had seen it all, bowed very low.",
)


def skill_learned(story: Story) -> None:
    """The hero cannot do something, fails, is told the trick of it and practices until it works."""
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
    story.say(("And then, one {weather} {part_of_day}, it happened.", "On the tenth day something changed.",
               "And one [evening|afternoon], when [nobody was looking|{he} was thinking of supper|it was almost dark], it worked."), chance=0.8)  # fmt: skip
    story.say(skill.works)
    story.speak("hero", _SKILL_WORKS_LINES, GLADLY_CRY)
    scenes.feel_proud(story, chance=0.5)
    story.say(_SKILL_ENDS)


def _skill_to_learn(story: Story) -> _Skill:
    """A skill, but no frog, otter or beaver has to learn to swim."""
    skill = story.pick(_SKILLS)
    is_born_with_it = skill.verb == "swim" and story.fill("{hero.kind}") in ("frog", "otter", "beaver")
    return _SKILLS[0] if is_born_with_it else skill


_GAME_BEGINS = (
    "{one_day}, {hero} and {friend} played hide and seek {place.at} with all the others.",
    "{one_day}, {friend} wanted to play hide and seek {place.at}.",
    "{one_day}, it was {friend}'s turn to count, and {hero} ran to hide.",
)
_GAME_COUNTS = ("One, two, three, I am coming", "Ready or not, here I come", "I will find all of you", "You cannot hide from me")
_HIDES = (
    "{hero} looked {spot_1}, but somebody was there already. {spot_2} was too easy. So {he} hid {spot_3}.",
    "{he} wanted the [best|smallest|darkest] place of all. At last {he} found it, {spot_3}.",
    "{hero} made {himself} as small as {he} could and hid {spot_3}.",
    "This time {he} [would not|did not want to] be the first to be found. {he} lay down {spot_3} and did not move.",
)
_WAITS_HIDDEN = (
    "{he} heard steps come close and go away again. {he} pressed both {hero.hands} over {his} mouth.",
    "One by one the others were found. {he} could hear them [laugh|run|call].",
    "[A beetle|An ant|A snail] walked over {his} [nose|foot|ear], and still {he} did not move.",
    "It was the best place in the world. It was also rather [wet|dark|cold].",
)
_FORGOTTEN = (
    "But nobody came. It grew [quiet|cold], and the shadows grew [long|dark].",
    "After a while {he} heard nothing [at all|but the wind], and {he} fell asleep.",
    "{he} waited and waited. Had they all gone home?",
    "The sun went down. What good was the best place if nobody [ever found it|came to look]?",
)
_FORGOTTEN_LINES = ("Have they forgotten me?", "I am too good at this", "Hello? Is anybody there?", "I want to be found now")
_SEARCHES = (
    "Then {he} heard {friend} calling {his} name, again and again. The voice was [full of worry|small and tired|close to tears].",
    "[Far away|Between the trees] there were [lanterns|lights], and many voices, and all of them called for {hero}.",
    "They had not gone home. {friend} had looked in every corner, [twice|three times|ten times], and would not [go to supper|give up|go home].",
)
_COMES_OUT = (
    "{hero} jumped up so fast that {he} had leaves [in {his} ears|on {his} head].",
    "{hero} crept out, [stiff and cold|wet and cold|a little sleepy], and waved both arms.",
    "{hero} [sneezed|coughed|called back], and that was the end of the game.",
    "{hero} [ran|{hero.ran}] toward the voice [as fast as {he} could|without stopping once].",
)
_FOUND_YOU = (
    "There you are! I was so afraid",
    "You won! Please never do that again",
    "I would have looked all night",
    "I found you, and I will not let go",
)
_GAME_ENDS = (
    "It is [fun|good] to hide, {hero} thought, but [the best part is|it is even better] to be found.",
    "{hero} had won the game, but it was the hug that {he} remembered.",
    "They still talk about that hiding place, and nobody has ever found it.",
    "The next time, {hero} hid where one [foot|ear|toe] stuck out, just to be sure.",
    "On the way home they [stayed close together|sang out loud|counted each other twice], so that nobody could get lost.",
)


def hide_and_seek(story: Story) -> None:
    """The hero hides too well, feels forgotten and is glad to be found."""
    scenes.open_tale(story)
    scenes.introduce_friend(story)
    story.paragraph(chance=0.8)
    story.say(_GAME_BEGINS)
    story.speak("friend", _GAME_COUNTS, CRY, chance=0.8)
    story.say(_HIDES)
    story.say(_WAITS_HIDDEN)
    story.paragraph(chance=0.6)
    story.say(_FORGOTTEN)
    scenes.feel_lonely(story, chance=0.3)
    story.speak("hero", _FORGOTTEN_LINES, SADLY)
    story.paragraph(chance=0.6)
    story.say(_SEARCHES)
    story.say(_COMES_OUT)
    story.speak("friend", _FOUND_YOU, GLADLY)
    scenes.feel_glad(story, chance=0.4)
    story.say(_GAME_ENDS)
    scenes.close_tale(story, chance=0.25)
