"""Parts that any tale may have: setting the scene, opening, meeting a helper, feelings, closing."""

from __future__ import annotations

from alm.corpus.sources.tales import cast, places, words
from alm.corpus.sources.tales.story import Story

_INTRODUCTIONS = (
    "[Once upon a time|Once|Long ago], [there was|there lived] {hero.a} named {hero}.",
    "[Once upon a time|Long ago|Not so long ago], {hero.a} named {hero} lived in {home} {near}.",
    "{hero} was {hero.a} who lived in {home} {near}.",
    "In {home} {near} lived {hero.a} [named|called] {hero}.",
    "{near}, in {home}, lived {hero.a} named {hero}.",
    "This is the story of {hero}, {hero.a} who lived {near}.",
    "There was once {hero.a} [named|called] {hero}, and {his} home was {home} {near}.",
)
_INTRODUCTIONS_BY_HOBBY = (
    "[Once upon a time|Once|Long ago] there was {hero.a} named {hero} who loved {hobby}.",
    "{hero} was {hero.a} who loved {hobby} [more than anything|and {hobby_2}].",
    "{near} lived {hero.a} named {hero} who [loved|was very good at] {hobby}.",
    "There was once {hero.a} [named|called] {hero}. If {he} was not {hobby}, {he} was {hobby_2}.",
)
_HOBBIES = (
    "{he} loved {hobby} and {hobby_2}.",
    "If {he} was not {hobby}, {he} was {hobby_2}.",
    "On [most|many] days {he} could be found {hobby}.",
    "{he} [liked|loved] {hobby}, but [most of all|even more] {he} loved {hobby_2}.",
    "What {he} liked best was {hobby}.",
)
_TRAITS = (
    "{he} was [very |]{trait} and {trait_habit}.",
    "{he} was a {trait} {hero.kind} who {trait_habit}.",
    "[Everyone knew|People said|It was well known] that {hero} {trait_habit}.",
    "{he} {trait_habit}.",
)

_FRIENDS = (
    "{his} best friend was {friend.a} named {friend}.",
    "{hero} had a [good|dear] friend, {friend.a} named {friend}.",
    "{he} played every day with {his} friend {friend}, {friend.a} [from down the lane|from across the field].",
    "Next door lived {friend.a} named {friend}, and the two were always together.",
    "{hero} and {his} friend {friend}, {friend.a}, did everything together.",
    "Nobody made {him} laugh like {his} friend {friend}, {friend.a} [who was afraid of nothing|with big ideas|"
    "who lived close by|who never stopped talking].",
)

_MEETINGS = (
    "On the way {he} met {helper.a}, {helper.doing}.",
    "[Just then|After a while|At the next corner], {he} saw {helper.a} {helper.doing}.",
    "There was {helper.a} {helper.doing}, and {hero} stopped.",
    "{way_3}, {he} [found|came upon] {helper.a} {helper.doing}.",
)

_SAD = (
    "{hero} felt [very sad|so sad|sad and small].",
    "{his} heart [sank|felt as heavy as a stone|sank like a stone].",
    "A [big|hot] tear rolled down {his} nose.",
    "{he} sat down on [a stone|the ground|a step] and [cried a little|sighed|hid {his} face in {his} {hero.hands}].",
    "{hero} tried not to cry, but {his} [eyes|cheeks] were soon wet.",
    "There was a lump in {his} throat, and {he} could not [speak|say a word].",
    "For a [while|long time] {hero} [just stood there|said nothing at all|only looked at the ground|could not move].",
)
_SCARED = (
    "{his} heart beat [fast|like a drum|so loud that {he} could hear it].",
    "{hero} was so scared that {his} [knees|{hero.hands}] shook.",
    "{he} wanted to [run away|hide|call for help], but {his} [feet|legs|knees] would not [move|carry {him}].",
    "{he} felt [cold|hot and cold] [all over|from {his} nose to {his} toes|right down to {his} toes].",
    "{hero} held {his} breath and [listened|waited|did not move].",
    "{his} mouth was dry, and {his} [tummy felt tight|voice was gone|ears rang].",
)
_GLAD = (
    "{hero} was so [happy|glad] that {he} [danced|jumped up and down|laughed out loud|sang].",
    "{his} heart felt [light|as light as air|as light as a feather|like a bird in the wind].",
    "{hero} [smiled from ear to ear|could not stop smiling].",
    "{he} laughed and [turned around and around|clapped {his} {hero.hands}|fell over {his} own feet].",
    "{he} felt warm [all over|from {his} toes to {his} ears], as if {he} had [eaten hot soup|sat by the stove].",
)
_PROUD = (
    "{hero} stood [very tall|on the tips of {his} toes|a little taller than before].",
    "{he} was so proud that {his} [cheeks|ears] [glowed|turned pink].",
    "{hero} had never felt so [proud|tall|brave].",
    "{he} walked home [like a king|with {his} nose in the air|with big, proud steps].",
)
_SORRY = (
    "{his} tummy [hurt|felt heavy], and it was not from [supper|too much cake].",
    "{hero} felt [small and sorry|hot and sorry|very small].",
    "{his} [ears|cheeks] [grew red|grew hot], and {he} could not look up.",
    "The [more|longer] {he} thought about it, the [worse|smaller|sadder] {he} felt.",
    "{he} wished that {he} could [begin the day again|take it all back|be somewhere else].",
)
_LONELY = (
    "The day [seemed|felt] [very long|long and empty].",
    "{hero} had never felt so [alone|lonely].",
    "It was [strange|no fun] to laugh at a joke all alone.",
    "{he} looked [down the lane|out of the window] again and again, but nobody came.",
)

_CODAS = (
    "That night {hero} fell asleep [with a smile|at once|before the moon was up].",
    "That night {hero} [told the moon all about it|told the stars what had happened|sang a little song about it].",
    "When {he} [lay in bed|closed {his} eyes|blew out the candle] that night, {hero} was still [smiling|humming].",
    "It had been [a good day|a long day|a day to remember], [after all|and it was not over yet|and tomorrow there "
    "would be another].",
    "At bedtime {hero} [thought of it|told the story] one more time, and then {he} [slept|closed {his} eyes|began to "
    "dream].",
    "[Even now|To this day], when [somebody|{elder}] asks about that day, {hero} only [smiles|laughs].",
    "[The stars came out|The moon rose] over {near_the}, and {hero} slept [well|without a care|until morning].",
    "{he} could not wait to tell {elder} [about it|the whole story|what had happened].",
    "And for supper there was {food.a}, [warm from the oven|the best one ever|and everyone wanted more].",
    "Then {he} went back to {hobby}, because some things never change.",
    "And even {hobby} [felt better|was more fun] than before.",
)


def set_scene(story: Story) -> None:
    """Choose the characters, the place and the time of the tale. Add no text yet."""
    hero, friend = _pair(story)
    story.put(hero=hero, he=hero.he, him=hero.him, his=hero.his, himself=hero.himself, friend=friend)
    place = story.pick(places.PLACES)
    spots = story.several(place.spots, 3)
    ways = story.several(places.WAYS, 3)
    junk = story.several(words.JUNK, 2)
    hobbies = story.several(words.HOBBIES, 2)
    story.put(place=place, sight=story.pick(place.sights), junk_1=junk[0], junk_2=junk[1])
    story.put(spot_1=spots[0], spot_2=spots[1], spot_3=spots[2], way_1=ways[0], way_2=ways[1], way_3=ways[2])
    story.put(hobby=hobbies[0], hobby_2=hobbies[1], food=story.pick(words.FOODS), helper=story.pick(cast.HELPERS))
    story.put(elder=f"{hero.his} {story.pick(cast.ELDERS)}")
    _set_time(story)


def _set_time(story: Story) -> None:
    season, weathers = story.pick(words.SEASON_WEATHER)
    story.put(season=season, weather=story.pick(weathers), part_of_day=story.pick(words.PARTS_OF_DAY))
    story.put(one_day=story.fill(story.pick(words.DAY_OPENINGS)))


def _pair(story: Story) -> tuple[cast.Character, cast.Character]:
    """Choose the hero and a friend from the pairs of friends, in either order."""
    one, other = story.pick(cast.PAIRS)
    hero, friend = (one, other) if story.happens(0.5) else (other, one)
    story.put(home=story.pick(hero.kind.homes))
    near = story.pick(places.NEAR)
    story.put(near=near.where, near_the=near.the)
    return _character(story, hero), _character(story, friend)


def _character(story: Story, name: cast.Name) -> cast.Character:
    own, kind = name.pronouns, name.kind
    return cast.Character(
        name.text, own.he, own.him, own.his, own.himself,
        kind=kind.noun, a=f"a {story.pick(kind.looks)} {kind.noun}", ran=kind.ran, hands=kind.hands,
    )  # fmt: skip


def open_tale(story: Story, *, traits: tuple[words.Trait, ...] = words.TRAITS, has_friend: bool = True) -> None:
    """Introduce the hero and the friend; `traits` are those that suit the plot."""
    trait = story.pick(traits)
    story.put(trait=trait.is_, trait_habit=story.fill(trait.habit))
    if story.happens(0.4):
        story.say(_INTRODUCTIONS_BY_HOBBY)
        story.say(_TRAITS, chance=0.8)
    else:
        story.say(_INTRODUCTIONS)
        story.say(_TRAITS if story.happens(0.6) else _HOBBIES, chance=0.95)
    if has_friend:
        story.say(_FRIENDS)


def meet_helper(story: Story) -> None:
    story.say(_MEETINGS)


def feel_sad(story: Story, *, chance: float = 0.7) -> None:
    story.say(_SAD, chance=chance)


def feel_scared(story: Story, *, chance: float = 0.8) -> None:
    story.say(_SCARED, chance=chance)


def feel_glad(story: Story, *, chance: float = 0.7) -> None:
    story.say(_GLAD, chance=chance)


def feel_proud(story: Story, *, chance: float = 0.7) -> None:
    story.say(_PROUD, chance=chance)


def feel_sorry(story: Story, *, chance: float = 0.8) -> None:
    story.say(_SORRY, chance=chance)


def feel_lonely(story: Story, *, chance: float = 0.8) -> None:
    story.say(_LONELY, chance=chance)


def close_tale(story: Story, *, chance: float = 0.4) -> None:
    """Add a last sentence that suits any tale with a good end."""
    story.say(_CODAS, chance=chance)


def choose_thing(story: Story, kept: tuple[words.Kept, ...] = words.KEPT) -> words.Kept:
    """Choose the belonging of the tale, and fill the slots `thing` and `habit`."""
    choice = story.pick(kept)
    look = story.pick(choice.looks)
    story.put(thing=words.Thing(choice.noun, f"a {look} {choice.noun}", f"the {look} {choice.noun}", look))
    story.put(habit=story.fill(choice.habit))
    return choice
