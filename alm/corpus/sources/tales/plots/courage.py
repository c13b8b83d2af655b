"""Tales of courage: a fear overcome, a storm sat out, a strange noise in the night."""

from __future__ import annotations

from dataclasses import dataclass

from alm.corpus.sources.tales import scenes, words
from alm.corpus.sources.tales.story import (
    ADVISE, CRY, GLADLY, WHISPER, Shapes, Story,
)  # fmt: skip


@dataclass(frozen=True)
class _Fear:
    """Something to be afraid of: how it is avoided, the trials that force the hero to face it, and the truth of it.

    A trial is what happens, the brave act, and how the act ends.
    """

    of: str
    avoids: Shapes
    trials: tuple[tuple[str, str, str], ...]
    truth: Shapes


_FEARS = (
    _Fear(
        "the dark",
        ("{he} always slept with a candle by the bed.", "{he} ran up the stairs at night and never looked back.",
         "At night {he} [hid|kept] {his} head under the blanket, even in summer."),
        (("One night the candle went out, and in the next room [the baby|a tiny kitten] began to cry.",
          "{hero} put one foot on the cold floor, and then the other. {he} felt {his} way along the wall, step by step.",
          "The crying stopped as soon as {he} sat down beside the little bed."),
         ("One night {elder} came home late, and the [lamp|lantern] at the gate had gone out.",
          "{hero} sang very softly and walked out into the dark to light it again.",
          "Soon the [lamp|lantern] was bright again, and {elder} found the way."),
         ("One night {hero} left {his} {thing} outside, and it began to rain.",
          "{hero} opened the door and took ten steps, and counted every one of them.",
          "There was the {thing.noun}, hardly wet at all.")),
        ("Nothing jumped out. The dark was only the same [room|garden|world] with its eyes closed.",
         "Soon {his} eyes could see [a chair, a door|a roof, a tree] and a sky full of stars. It was the dark that made "
         "the stars."),
    ),
    _Fear(
        "thunder",
        ("{he} hid under the bed whenever the sky turned gray.", "{he} put {his} head under a pillow at every bang.",
         "When the clouds [came|grew dark], {he} [ran home|held both ears] and shook like a leaf."),
        (("One night a great storm came, and a [little lamb|wet puppy] stood outside, crying for its mother.",
          "{hero} ran out into the rain and brought it in. Then {he} counted out loud after every flash. One, two, three.",
          "The little one fell asleep in {his} arms."),
         ("One evening the sky went black, and {friend}, {friend.a}, was caught outside with no place to hide.",
          "{hero} opened the door, though the storm was loud, and ran out to [wave a lantern|ring a bell].",
          "{friend} saw it and came in, wet and glad."),),
        ("The thunder was only the sky, playing a big drum.",
         "The count got longer each time, and {he} knew that the storm was going away.",
         "It was loud, but it was only [loud|noise], and noise could not bite."),
    ),
    _Fear(
        "deep water",
        ("{he} never went in past {his} knees.", "{he} would not even sit in a boat.",
         "{he} [watched|sat on the bank] when the others jumped in."),
        (("{one_day}, a duckling was caught in the reeds of the lake, and it was crying for help.",
          "{hero} took one step, and then another. The water came up to {his} tummy, and then up to {his} chin.",
          "{he} pushed the reeds out of the way, and the duckling was free."),
         ("{one_day}, the hat of {friend}, {friend.a}, blew off and sailed away on the lake like a little boat.",
          "{hero} shut {his} eyes, kicked with both feet and did not stop.",
          "{he} came back with the hat on {his} own head."),),
        ("The water held {him} up like a big, cool hand.",
         "It was only water, and it was wet all the way through, and that was all."),
    ),
    _Fear(
        "being high up",
        ("{he} would not even stand on a chair.", "{he} never climbed past the first step of a ladder.",
         "When the others climbed [trees|the tower|the wall], {he} stayed on the ground and held their hats."),
        (("{one_day}, a kitten sat on the roof of the barn and cried, and nobody else was there to help.",
          "{hero} held on with both {hero.hands} and went up the ladder, slowly, slowly, counting every step.",
          "The kitten jumped into {his} arms and would not let go."),
         ("{one_day}, the kite of {friend}, {friend.a}, was caught at the top of a tall tree.",
          "{hero} climbed one branch, and then one more, and {he} never looked down.",
          "The kite came loose, and {friend} cheered and cheered."),),
        ("From the top {he} could see the whole valley, and it was lovely.",
         "Up there the wind was soft, and {near_the} looked like a toy."),
    ),
    _Fear(
        "the big dog by the mill",
        ("{he} always took the long way around.", "{he} ran past its gate as fast as {he} could.",
         "{he} could hear it bark from [the church|the far end of the village|under the blanket]."),
        (("{one_day}, {his} ball rolled through the gate and stopped between two big paws.",
          "{hero} opened the gate, just a little, and held out {food.part}.",
          "The dog ate it, pushed the ball over with its nose and sat down."),
         ("{one_day}, the big dog lay by the gate and did not bark. It only cried.",
          "{hero} came closer, one small step at a time, and spoke in a soft voice.",
          "There was a thorn in its foot. {hero} pulled it out, and the dog licked {his} whole face."),),
        ("The dog did not want to bite anyone. It only wanted somebody to play ball.",
         "It was not a bad dog. It was only a big dog with nobody to talk to."),
    ),
    _Fear(
        "the old bridge",
        ("{he} always went the long way through the mud.", "{he} thought that it talked like a hungry giant."),
        (("{one_day}, {elder} was ill on the other side and needed [soup|help] before dark.",
          "{hero} held the rope and counted every step. Ten, eleven, twelve.",
          "{elder} had never been so glad to see anyone."),
         ("{one_day}, a little [lamb|goat|duckling] stood in the middle of the bridge and was too scared to move.",
          "{hero} looked at the far side, not at the water, and put one foot in front of the other.",
          "Then {he} led the little one across, and both of them were shaking and smiling."),),
        ("The bridge shook, but it held. It was only an old bridge telling its stories.",
         "On the far side {he} turned around and saw how small the bridge really was."),
    ),
    _Fear(
        "singing when others could hear",
        ("{he} only sang behind the barn, where only the cows could hear.", "When people came, {he} hid behind {elder}."),
        (("{one_day}, at the fair, the old singer had a cold, and everyone sat and waited.",
          "{hero} stood up on shaking legs. The first note was as thin as a thread, but it held.",
          "When it was over, they clapped and clapped."),
         ("{one_day}, a baby would not stop crying, and nobody knew what to do.",
          "{hero} looked at one kind face and began, very softly.",
          "The baby stopped crying, and then it slept."),),
        ("With every line the song grew bigger, and {he} grew with it.",
         "Nobody laughed. They listened, and then they sang along."),
    ),
    _Fear(
        "the scarecrow in the corn",
        ("{he} was sure that it turned its head when nobody looked.", "{he} never walked past it alone."),
        (("{one_day}, the wind blew off its hat and dropped it right in front of {him}.",
          "{hero} picked up the hat, walked straight into the corn and looked up.",
          "{he} put the hat back on its head, and nothing happened at all."),
         ("{one_day}, {hero} heard a thin voice from the middle of the corn. It was a lost chick.",
          "{hero} pushed through the corn and walked right up to those long straw arms.",
          "There sat the chick, and {he} picked it up and carried it home."),),
        ("It was only an old coat full of straw, with a family of birds under its hat.",
         "From close by, its painted smile was a friendly one, and a mouse was asleep in its pocket."),
    ),
)  # fmt: skip

_AFRAID = (
    "{hero} was not afraid of much, but {he} was afraid of {fear.of}.",
    "There was only one thing that {hero} was afraid of, and that was {fear.of}.",
    "But {he} had a secret. {he} was afraid of {fear.of}.",
    "Nobody knew that {hero} was afraid of {fear.of}.",
)
_BRAVE_ADVICE = (
    "Brave is not the same as not afraid. You can be both",
    "Everyone is afraid of something. I am afraid of hens",
    "Brave is what you are when your knees shake and you still go",
    "A fear looks smaller when you walk up to it",
    "You can be scared and do it, too",
)
_DECIDES = (
    "{hero} looked [around|left and right]. There was nobody else.",
    "{he} thought of running away. Then {he} thought of who was waiting.",
    "{hero} counted to three, and nothing happened. So {he} counted to three again.",
    "Somebody had to do something, and {hero} was the only one there.",
)
_DECIDE_LINES = (
    "I can do this",
    "I am scared, but I am coming",
    "One step. I will only take one step",
    "If I do not go, who will?",
    "I will be brave for as long as it takes to count to ten",
)
_BRAVE_NOW = (
    "{hero} had done it!",
    "It was over before {he} had time to be afraid again.",
    "And all was well in the end.",
    "Only later did {his} legs begin to shake, and then {he} had to laugh.",
)
_AFTER_FEAR = (
    "{he} was still a little afraid of {fear.of} after that, but only a little.",
    "The next time it was not so hard, and the time after that, it was easy.",
    '"I was afraid the whole time," {hero} told {elder} later. "And I did it anyway."',
    "From that day on, {hero} [helped|was kind to|sat with] others who were afraid, because {he} knew how it felt.",
    "And the fear, which had been as big as a house, now fit into {his} pocket.",
)


def fear_overcome(story: Story) -> None:
    """The hero is afraid of something, is needed, and goes anyway."""
    fear = story.pick(_FEARS)
    trial, act, done = story.pick(fear.trials)
    scenes.choose_thing(story)
    story.put(fear=fear)
    scenes.open_tale(story)
    story.say(_AFRAID)
    story.say(fear.avoids)
    story.speak("elder", _BRAVE_ADVICE, ADVISE, chance=0.5)
    story.paragraph()
    story.say((trial,))
    scenes.feel_scared(story)
    story.say(_DECIDES, chance=0.6)
    story.speak("hero", _DECIDE_LINES, WHISPER, chance=0.7)
    story.paragraph(chance=0.5)
    story.say((act,))
    story.say(fear.truth)
    story.say((done,))
    story.say(_BRAVE_NOW, chance=0.6)
    story.paragraph(chance=0.4)
    scenes.feel_proud(story, chance=0.7)
    story.say(_AFTER_FEAR)
    scenes.close_tale(story, chance=0.35)


_STORM_SIGNS = (
    "{one_day}, {hero} and {friend} were playing {place.at} when the sky turned [black|dark gray|as dark as night].",
    "{one_day}, the two friends were {place.at}. The birds stopped singing, and the air was very [still|cold|heavy].",
    "{one_day}, {hero} and {friend} had just unpacked their picnic {place.at} when the wind began to blow.",
    "{one_day}, {friend} pointed at the sky. Over {near_the} stood a wall of dark clouds.",
)
_STORM_LINES = (
    "A storm is coming",
    "Run! It is going to rain",
    "We have to find a dry place",
    "Look at those clouds",
    "Quick, come with me",
)
_STORM_BREAKS = (
    "Then the rain came down, [all of it at once|as if someone had turned over a bucket|harder and harder].",
    "Lightning [split|lit up] the sky, and the thunder made the [ground|trees|very stones] shake.",
    "The wind pulled at their [ears|hats] and threw [leaves|sand|rain] into their faces.",
    "Soon the [path|road] was a stream, and the stream was a river.",
)
_SHELTERS = (
    "They ran [side by side|with their heads down] and crawled under [an old cart|a wide rock|a fallen tree].",
    "They found [a small cave|an empty house|a dry barn] just in time and pulled each other inside.",
    "They tried to [run home|cross the field|get to the village], but the [wind|rain] pushed them back. So they hid in [a hollow tree|an old shed].",
)
_STORM_GUESTS = (
    "Someone was there already. It was {helper.a}, wet from nose to toes.",
    "A [tiny bird|wet mouse|little rabbit] came in after them, and they made room.",
    "Outside, a small voice cried for help. {hero} ran out and came back with a wet [kitten|chick|lamb] in {his} arms.",
    "In the corner sat a [hen|mother cat] with [three|four|five] little ones, and all of them were shaking.",
)
_STORM_WAITS = (
    "They sat close together and shared {food.part}.",
    "To keep warm, they told [stories|jokes], each one [sillier|longer|louder] than the last.",
    "{friend} was afraid of the thunder, so {hero} sang the [loudest|longest|silliest] song {he} knew.",
    "{hero} was afraid, and {friend} [held on to {him}|told {him} jokes|sang to {him}] until the worst was over.",
    "They counted [out loud|the time] between the flash and the bang, and each time it was [longer|a little longer].",
    "They made a game of it. After every [thunder|bang|flash], they [roared|shouted|sang] right back.",
)
_STORM_ENDS = (
    "Little by little, the [rain grew softer|thunder went away|sky turned blue], and then it [stopped|was over].",
    "At last the clouds [broke open|moved on], and [one thin ray of sun|a little bit of blue] came through.",
    "[Suddenly|After a while|Then] it was so quiet that they could hear [the drops fall from the leaves|a bird sing far away|each other breathe].",
)
_AFTER_STORMS = (
    "A rainbow stood over {near_the}, and everything smelled new.",
    "The whole world was [washed and shining|clean and green], and there was a [snail|drop of light] on every leaf.",
    "A [big|very old] tree had fallen across the path, right where they had [stood|been playing] before.",
    "Every puddle had a piece of [blue sky|rainbow|sun] in it.",
)
_AFTER_STORM_DEEDS = (
    "The next day they helped to mend the [roofs|walls|bridge], and everyone [in the village |]had a story about the storm.",
    "They put a fallen nest back into its tree, and the mother bird [sang for them|looked at them for a long time].",
    "They took the [longest|wettest] way home, through every single puddle.",
    "{elder} came running and hugged them both at the same time.",
)
_AFTER_STORM_LINES = (
    "I am not afraid when you are with me",
    "That was the best storm I ever had",
    "Next time we will bring a bigger cake",
    "You are as brave as a bear",
    "I am wet from head to toe, and I do not mind",
)


def storm(story: Story) -> None:
    """Two friends are caught in a storm and sit it out together."""
    scenes.open_tale(story)
    scenes.introduce_friend(story)
    story.paragraph(chance=0.8)
    story.say(_STORM_SIGNS)
    story.speak("friend" if story.happens(0.5) else "hero", _STORM_LINES, CRY)
    story.say(_STORM_BREAKS)
    scenes.feel_scared(story, chance=0.5)
    story.paragraph(chance=0.7)
    story.say(_SHELTERS)
    story.say(_STORM_GUESTS, chance=0.55)
    for wait in story.several(_STORM_WAITS, 2 if story.happens(0.4) else 1):
        story.say((wait,))
    story.paragraph(chance=0.7)
    story.say(_STORM_ENDS)
    story.say(_AFTER_STORMS)
    story.speak("friend", _AFTER_STORM_LINES, GLADLY, chance=0.7)
    story.say(_AFTER_STORM_DEEDS)
    scenes.close_tale(story, chance=0.35)


@dataclass(frozen=True)
class _Noise:
    """A noise at night and the harmless thing that made it."""

    sound: str
    guess: str
    found: tuple[str, ...]
    after: tuple[str, ...]


_NOISES = (
    _Noise("tap, tap, tap", "a cold hand on the window",
           ("It was a branch of the pear tree, tapping on the glass.",
            "It was a small bird that had lost its way and wanted to come in."),
           ("{hero} waved at it and went back to bed.", "{hero} opened the window, and it slept on the lamp until morning.")),
    _Noise("bump, bump, bump", "a giant on the stairs",
           ("It was a ball that rolled down the stairs, with a kitten behind it.",
            "It was {elder}, who had hurt one toe in the dark and was jumping on one foot."),
           ("{hero} took both of them to bed.", "They both laughed until the neighbors knocked on the wall.")),
    _Noise("scratch, scratch", "a hungry wolf at the door",
           ("It was a hedgehog, stuck in an empty milk can.", "It was a puppy that wanted to come in from the cold."),
           ("{hero} pulled it out and gave it [a bowl of milk|a piece of apple].", "It stayed until morning, and then for good.")),
    _Noise("whoo, whoo", "a ghost on the roof",
           ("It was an old bottle on the wall, and the wind was playing on it like a flute.",
            "It was a young owl, practicing for its first night out."),
           ("{hero} listened for a while, because it was really very pretty.", "{hero} said good night, and it answered.")),
    _Noise("drip, drop, drip", "a wet monster coming closer",
           ("It was a hole in the roof, and rain was falling into the soup pot.",
            "It was {his} own wet coat, hanging by the door."),
           ("{hero} put a spoon under the drops, and then it sounded like music.", "{hero} shook it and went back to bed.")),
    _Noise("creak, creak", "someone walking on the roof",
           ("It was the garden gate, open in the wind.", "It was the old chair, with the cat in it."),
           ("{hero} shut it with a piece of string.", "{hero} sat down, too, and sang until {he} was sleepy.")),
    _Noise("munch, munch", "something very hungry under the bed",
           ("It was a mouse with a piece of cheese, as scared as {he} was.",
            "It was a goat, with its head through the window and a sock in its mouth."),
           ("{hero} let it eat its supper.", "{hero} got the sock back, or most of it.")),
    _Noise("snore, snore", "a dragon behind the door",
           ("It was {elder}, fast asleep in a chair, with an open book for a hat.",
            "It was a fat toad, singing in the flower pot."),
           ("{hero} put a blanket on {elder} and tiptoed off.", "{hero} bowed to it and closed the door very softly.")),
)  # fmt: skip

_NIGHT_HEARS = (
    "One {night} night, {hero} woke up. Something went {noise.sound}.",
    "One night, when the [house was dark|moon was thin|fire was out], {hero} heard a noise. {noise.sound}, it went.",
    "One night {hero} could not sleep. And then {he} heard it. {noise.sound}!",
    "In the middle of a {night} night, a sound woke {him}. It went {noise.sound}.",
)
_NIGHT_GUESSES = (
    "It sounded like {noise.guess}.",
    "{hero} was sure that it was {noise.guess}.",
    "What could it be? Perhaps it was {noise.guess}.",
    "In the dark {he} could think of only one thing, and that was {noise.guess}.",
)
_NIGHT_HIDES = (
    "{he} pulled the blanket [up to {his} nose|over {his} ears|up to {his} chin]. {noise.sound}, it went again.",
    "{he} [hid under the pillow|covered {his} ears|sang a song], but {he} could still hear it.",
    "{he} waited for it to stop, but it only [grew louder|came closer|went on and on].",
    "{he} counted [ten|seven|twelve] sheep, but the sheep were [scared|awake|afraid] as well.",
)
_NIGHT_LINES = ("Who is there?", "Go away, please", "I am not afraid of you, or only a little", "Hello? Is that a monster?")
_NIGHT_GOES = (
    "At last {hero} took [the lamp|a candle], put on one sock and tiptoed toward the sound.",
    "[It is worse not to know|I have to see what it is|It cannot be as bad as it sounds], {he} thought. So {he} took a [broom|spoon|pillow] in one hand and opened the door.",
    "With {his} {thing} for luck, {hero} crept out of bed, across the cold floor and into the dark.",
    "{he} got up. One step. Two steps. The floor was cold, and the [sound|noise] [came closer|grew louder|stopped, and then began again].",
)
_NIGHT_LAUGHS = (
    "{hero} had to laugh.",
    "{hero} laughed so [hard|loud] that [{he} had to sit down|the whole house woke up|{his} tummy hurt].",
    "All the fear went out of {him} like [air out of a balloon|water out of a bucket|smoke up into the sky].",
    "{hero} let out a long breath and [smiled|shook {his} head|sat down on the floor].",
)
_NIGHT_ENDS = (
    "Now when something goes {noise.sound} in the night, {hero} only turns over and sleeps on.",
    "After that, {hero} was the one who went to look whenever something went bump in the night.",
    "In the morning {he} told {elder}, and the monster got a little bigger with every telling.",
    "Most monsters, {hero} found out, are only things that nobody has looked at.",
    "Then the house was quiet, and the only sound was {hero}, sleeping.",
)


def night_noise(story: Story) -> None:
    """A strange noise at night turns out to be something small."""
    scenes.choose_thing(story, words.KEPT)
    index = 0 if story.happens(0.5) else 1
    noise = story.pick(_NOISES)
    story.put(noise=noise, night=story.pick(("windy", "dark", "cold", "still", "long")))
    scenes.open_tale(story)
    story.paragraph(chance=0.8)
    story.say(_NIGHT_HEARS)
    story.say(_NIGHT_GUESSES)
    scenes.feel_scared(story)
    story.say(_NIGHT_HIDES)
    story.speak("hero", _NIGHT_LINES, WHISPER, chance=0.7)
    story.paragraph(chance=0.6)
    story.say(_NIGHT_GOES)
    story.say((noise.found[index],))
    story.say(_NIGHT_LAUGHS)
    story.speak("hero", ("So that is what you are", "And I was so afraid of you", "You do not look like a monster",
                         "I thought you were {noise.guess}"), GLADLY, chance=0.5)  # fmt: skip
    story.say((noise.after[index],))
    story.paragraph(chance=0.4)
    story.say(_NIGHT_ENDS)
