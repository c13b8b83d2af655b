"""Generation of one tale from a seed and an index."""

from __future__ import annotations

import random

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.plots import PLOTS
from alm.corpus.sources.tales.story import Story

_LEISURES = (0.2, 0.7, 1.0, 1.0)


def tell(*, seed: int, index: int) -> str:
    """Return one tale of 1 to 5 paragraphs with a blank line between them, without a newline at the end.

    The same `seed` and `index` give the same text on every platform and Python version: the only method of `Random`
    in use is `random`, the one whose numbers Python guarantees for a given seed.
    """
    numbers = random.Random(f"{seed}/{index}").random
    story = Story(numbers, leisure=_LEISURES[int(numbers() * len(_LEISURES))])
    scenes.set_scene(story)
    story.pick(PLOTS)(story)
    return story.text()
