"""The built-in corpus: a seeded generator of small English tales whose words were all written for this project.

`tell.tell` tells one tale; `cast.NAMES` lists every name a tale can use with its pronouns; `words`, `places` and
`cast` hold the world, `story` the telling, `scenes` the turns any tale may take, and `plots` what happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from alm.config.base import MANY, SEEDS
from alm.corpus.config import SourceConfig
from alm.corpus.document import Document, Items, Part, Survey
from alm.corpus.sources.tales.tell import tell
from alm.events import Listener, ignore

LICENCE = "Apache-2.0"
_PART_TALES = 50_000
_TALE_BYTES = 1000  # about


class Config(SourceConfig):
    """How many tales, and from which seed."""

    kind: Literal["tales"] = Field(default="tales", description="Tell the built-in tales.")
    documents: int = Field(default=10000, gt=0, le=MANY, description="How many tales are told.")
    seed: int = Field(default=1337, ge=0, lt=SEEDS, description="Decides every tale.")


def inputs(config: Config) -> list[Path]:
    """No files: the tales are made here."""
    return []


def survey(config: Config, *, on_event: Listener = ignore) -> Survey:
    """As many tales at once as are worth a process of their own."""
    starts = range(0, config.documents, _PART_TALES)
    parts = [(first, min(first + _PART_TALES, config.documents)) for first in starts]
    name = f"tales/{config.seed}"
    return Survey(
        tuple(Part(name, (end - first) * _TALE_BYTES, (first, end)) for first, end in parts),
        revision=f"seed-{config.seed}",
        licence=LICENCE,
    )


def read(config: Config, parts: Sequence[Part], *, revision: str | None = None, on_event: Listener = ignore) -> Items:
    """The tales of `parts`, in order."""
    for part in parts:
        for index in range(*part.where):
            yield Document(tell(seed=config.seed, index=index), origin=f"{part.name}#{index}")
