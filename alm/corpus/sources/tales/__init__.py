"""Kind `tales`: the built-in corpus, a seeded generator of short English tales written for this project.

The words are in the TOML files of `data/`: a file for each plot, and those that plots share (characters, places, words,
phrases). `tell.tell` makes one tale. It chooses the characters (`cast`), the place and the time, and a plot. A plot
(`plot`) is a list of steps, which choose from tables and fill the sentences of a `story`.
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
    """The number of tales, and the seed."""

    kind: Literal["tales"] = Field(default="tales", description="Generate the built-in tales.")
    documents: int = Field(default=10000, gt=0, le=MANY, description="Number of tales.")
    seed: int = Field(
        default=1337, ge=0, lt=SEEDS, description="Seed of the generator. A seed always gives the same tales."
    )


def inputs(config: Config) -> list[Path]:
    """Return no files: the tales are generated."""
    return []


def survey(config: Config, *, on_event: Listener = ignore) -> Survey:
    """Return parts of enough tales each to be worth a process."""
    starts = range(0, config.documents, _PART_TALES)
    parts = [(first, min(first + _PART_TALES, config.documents)) for first in starts]
    name = f"tales/{config.seed}"
    return Survey(
        tuple(Part(name, (end - first) * _TALE_BYTES, (first, end)) for first, end in parts),
        revision=f"seed-{config.seed}",
        licence=LICENCE,
    )


def read(config: Config, parts: Sequence[Part], *, revision: str | None = None, on_event: Listener = ignore) -> Items:
    """Yield the tales of `parts`, in order."""
    for part in parts:
        for index in range(*part.where):
            yield Document(tell(seed=config.seed, index=index), origin=f"{part.name}#{index}")
