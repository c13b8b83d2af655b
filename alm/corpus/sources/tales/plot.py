"""Plots, and the other parts of a tale that are files of steps: what to choose, and what to say in which order.

A file in `data/plots/` is a plot: one kind of trouble, and its solution. Its array `steps` holds what happens (see
`Step`), its other tables hold what the steps choose from. To add a plot, write such a file and put its name into
`PLOTS`. The files in `data/scenes/` are parts that tales share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from alm.corpus.sources.tales.data import read, rows
from alm.corpus.sources.tales.story import Story, moods

PLOTS = (
    *("lost_thing", "lost_little_one", "lost_way", "quarrel", "new_friend", "sick_friend", "fear_overcome", "storm"),
    *("night_noise", "stranger_helped", "shared_food", "stuck", "broken_mended", "building", "handmade_gift"),
    *("lie_owned", "took_too_many", "boast", "race", "skill_learned", "hide_and_seek", "surprise", "treasure", "wish"),
    *("seed", "trades"),
)
"""The plots. Their order is part of what a seed means."""


@dataclass(frozen=True)
class Step:
    """A step of a plot.

    Its parts happen in the order of the fields. Shapes are an array, or the name of a slot or column with one or more.
    """

    paragraph: float | None = None
    """Chance of a new paragraph before the step."""
    when: float | str | list[float | str] | None = None
    """A chance, a slot or column that must be true, or several of these. Otherwise `otherwise` replaces the step."""
    choose: Mapping[str, Any] = field(default_factory=dict)
    """Slots to fill, in order: see `Story.choose`."""
    scene: str | None = None
    """A file of `data/scenes/` whose steps follow."""
    say: list[str] | str | None = None
    """Shapes, one of which becomes a sentence."""
    twice: float | None = None
    """Chance that two of these become sentences, one after the other."""
    speaker: str | list[str] = ""
    """Who speaks: a slot, the words for someone without a name, or an array to pick one from."""
    mood: str | list[str] = ""
    """How, which `data/moods.toml` describes, or an array to pick one from."""
    lines: list[str] | str | None = None
    """Shapes, one of which is spoken."""
    chance: float = 1.0
    """Chance that the step adds a sentence or speech. A short tale scales it down."""
    then: tuple[Step, ...] = ()
    """Further steps, which `when` governs as well."""
    otherwise: tuple[Step, ...] = ()

    def tell(self, story: Story) -> None:
        """Add the step to a story."""
        if self.paragraph is not None:
            story.paragraph(chance=self.paragraph)
        if not self._holds(story):
            _tell_all(self.otherwise, story)
            return
        for slot, source in self.choose.items():
            story.choose(slot, source)
        if self.scene:
            load(f"scenes/{story.scenes.get(self.scene, self.scene)}").tell(story)
        if self.say is not None:
            shapes = story.shapes(self.say)
            if self.twice is None:
                story.say(shapes, chance=self.chance)
            else:
                for shape in story.several(shapes, 2 if story.happens(self.twice) else 1):
                    story.say([shape], chance=self.chance)
        if self.lines is not None:
            who, mood = story.one_of(self.speaker), story.one_of(self.mood)
            story.speak(who, story.shapes(self.lines), moods()[mood], chance=self.chance)
        _tell_all(self.then, story)

    def _holds(self, story: Story) -> bool:
        conditions = self.when if isinstance(self.when, list) else [self.when]
        return all(
            story.happens(each) if isinstance(each, float) else each is None or bool(story.look_up(each))
            for each in conditions
        )


@dataclass(frozen=True)
class Plot:
    """The content of a plot's file."""

    tables: Mapping[str, Any]
    steps: tuple[Step, ...]

    def tell(self, story: Story) -> None:
        """Add the plot to a story."""
        story.put(**self.tables)
        _tell_all(self.steps, story)


@cache
def load(name: str) -> Plot:
    """Return the plot or scene of a file of `data/`."""
    content = read(name)
    told = steps(content.pop("steps"))
    return Plot({table: rows(value) for table, value in content.items()}, told)


def steps(found: Iterable[Mapping[str, Any]]) -> tuple[Step, ...]:
    """Return the steps of an array of a file."""
    return tuple(_step(**keys) for keys in found)


def _step(then: Any = (), otherwise: Any = (), **keys: Any) -> Step:
    return Step(then=steps(then), otherwise=steps(otherwise), **keys)


def _tell_all(steps: Iterable[Step], story: Story) -> None:
    for step in steps:
        step.tell(story)
