"""The tales, one by one: tale number `index` of the corpus with some `seed`."""

from __future__ import annotations

import random

from alm.corpus.sources.tales import scenes
from alm.corpus.sources.tales.plots import PLOTS
from alm.corpus.sources.tales.story import Story

_LEISURES = (0.2, 0.7, 1.0, 1.0)


def tell(*, seed: int, index: int) -> str:
    """One tale of 1 to 5 paragraphs with a blank line between them, without a newline at the end.

    The same `seed` and `index` give the same text on every platform and Python version: of all methods of `Random`,
    only `random` is used, the one whose numbers Python promises to keep for a given seed.
    """
    numbers = random.Random(f"{seed}/{index}").random
    story = Story(numbers, leisure=_LEISURES[int(numbers() * len(_LEISURES))])
    scenes.set_scene(story)
    story.pick(PLOTS)(story)
    return story.text()
