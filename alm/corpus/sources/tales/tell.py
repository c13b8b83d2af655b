"""Generation of one tale from a seed and an index."""

from __future__ import annotations

import random

from alm.corpus.sources.tales import cast
from alm.corpus.sources.tales.data import shared_tables
from alm.corpus.sources.tales.plot import PLOTS, load
from alm.corpus.sources.tales.story import Story

_LEISURES = (0.2, 0.7, 1.0, 1.0)


def tell(*, seed: int, index: int) -> str:
    """Return one tale of 1 to 5 paragraphs with a blank line between them, without a newline at the end.

    The same `seed` and `index` give the same text on every platform and Python version: the only method of `Random`
    in use is `random`, the one whose numbers Python guarantees for a given seed.
    """
    numbers = random.Random(f"{seed}/{index}").random
    story = Story(numbers, leisure=_LEISURES[int(numbers() * len(_LEISURES))])
    set_scene(story)
    load(f"plots/{story.pick(PLOTS)}").tell(story)
    return story.text()


def set_scene(story: Story) -> None:
    """Choose the characters, the place and the time of the tale. Add no text yet."""
    story.put(**shared_tables())
    cast.choose_pair(story)
    load("scenes/setting").tell(story)
