"""Plots of the tales: each is a function that adds one kind of trouble, and its solution, to a `Story`."""

from __future__ import annotations

from collections.abc import Callable

from alm.corpus.sources.tales.plots.boast import boast
from alm.corpus.sources.tales.plots.broken_mended import broken_mended
from alm.corpus.sources.tales.plots.building import building
from alm.corpus.sources.tales.plots.fear_overcome import fear_overcome
from alm.corpus.sources.tales.plots.handmade_gift import handmade_gift
from alm.corpus.sources.tales.plots.hide_and_seek import hide_and_seek
from alm.corpus.sources.tales.plots.lie_owned import lie_owned
from alm.corpus.sources.tales.plots.lost_little_one import lost_little_one
from alm.corpus.sources.tales.plots.lost_thing import lost_thing
from alm.corpus.sources.tales.plots.lost_way import lost_way
from alm.corpus.sources.tales.plots.new_friend import new_friend
from alm.corpus.sources.tales.plots.night_noise import night_noise
from alm.corpus.sources.tales.plots.quarrel import quarrel
from alm.corpus.sources.tales.plots.race import race
from alm.corpus.sources.tales.plots.seed import seed
from alm.corpus.sources.tales.plots.shared_food import shared_food
from alm.corpus.sources.tales.plots.sick_friend import sick_friend
from alm.corpus.sources.tales.plots.skill_learned import skill_learned
from alm.corpus.sources.tales.plots.storm import storm
from alm.corpus.sources.tales.plots.stranger_helped import stranger_helped
from alm.corpus.sources.tales.plots.stuck import stuck
from alm.corpus.sources.tales.plots.surprise import surprise
from alm.corpus.sources.tales.plots.took_too_many import took_too_many
from alm.corpus.sources.tales.plots.trades import trades
from alm.corpus.sources.tales.plots.treasure import treasure
from alm.corpus.sources.tales.plots.wish import wish
from alm.corpus.sources.tales.story import Story

PLOTS: tuple[Callable[[Story], None], ...] = (
    lost_thing,
    lost_little_one,
    lost_way,
    quarrel,
    new_friend,
    sick_friend,
    fear_overcome,
    storm,
    night_noise,
    stranger_helped,
    shared_food,
    stuck,
    broken_mended,
    building,
    handmade_gift,
    lie_owned,
    took_too_many,
    boast,
    race,
    skill_learned,
    hide_and_seek,
    surprise,
    treasure,
    wish,
    seed,
    trades,
)
