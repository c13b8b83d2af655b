"""The tales, one by one: tale number `index` of the corpus with some `seed`."""

from __future__ import annotations

import random
from collections.abc import Callable

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.plots import courage, friends, kindness, lost, making, play, secrets, truth, wonder
from alm.corpus.sources.tales.story import Story

PLOTS: tuple[Callable[[Story], None], ...] = (
    lost.lost_thing,
    lost.lost_little_one,
    lost.lost_way,
    friends.quarrel,
    friends.new_friend,
    friends.sick_friend,
    courage.fear_overcome,
    courage.storm,
    courage.night_noise,
    kindness.stranger_helped,
    kindness.shared_food,
    kindness.stuck,
    making.broken_mended,
    making.building,
    making.handmade_gift,
    truth.lie_owned,
    truth.took_too_many,
    truth.boast,
    play.race,
    play.skill_learned,
    play.hide_and_seek,
    secrets.surprise,
    secrets.treasure,
    wonder.wish,
    wonder.seed,
    wonder.trades,
)


def tell(*, seed: int, index: int) -> str:
    """One tale of 1 to 5 paragraphs with a blank line between them, without a newline at the end.

    The same `seed` and `index` give the same text on every platform and Python version: seeding by a string and
    `Random.random` are the two things that Python promises never to change.
    """
    story = Story(random.Random(f"{seed}/{index}").random)
    scenes.set_scene(story)
    story.pick(PLOTS)(story)
    return story.text()
