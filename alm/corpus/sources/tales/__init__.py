"""The built-in corpus: a seeded generator of small English tales whose words were all written for this project.

`tell.tell` tells one tale; `cast.NAMES` lists every name a tale can use with its pronouns; `words`, `places` and
`cast` hold the world, `story` the telling, `scenes` the turns any tale may take, and `plots` what happens.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Literal

from pydantic import Field

from alm.corpus.config import SourceConfig
from alm.corpus.document import Document, Item, Source
from alm.corpus.sources.tales.tell import tell
from alm.events import Listener, ignore

LICENCE = "Apache-2.0"


class Config(SourceConfig):
    """How many tales, and from which seed."""

    kind: Literal["tales"] = Field(default="tales", description="Tell the built-in tales.")
    documents: int = Field(default=10000, gt=0, description="How many tales are told.")
    seed: int = Field(default=1337, ge=0, description="Decides every tale.")


def inputs(config: Config) -> list[Path]:
    """No files: the tales are made here."""
    return []


def open_source(config: Config, *, on_event: Listener = ignore) -> Source:
    """Every tale, in order."""
    return Source(_items(config), revision=f"seed-{config.seed}", licence=LICENCE)


def _items(config: Config) -> Generator[Item, None, None]:
    for index in range(config.documents):
        yield Document(tell(seed=config.seed, index=index), origin=f"tales/{config.seed}#{index}")
