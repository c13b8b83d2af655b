"""Kind `tale_dialogues`: generated dialogues about the built-in tales (`tales.dialogues`), as messages with roles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from alm.config.base import MANY, SEEDS
from alm.corpus.config import SourceConfig
from alm.corpus.conversations import render
from alm.corpus.document import Document, Items, Part, Survey
from alm.corpus.sources.tales import LICENCE
from alm.corpus.sources.tales.dialogues import dialogue
from alm.events import Listener, ignore

_PART_DIALOGUES = 25_000
_DIALOGUE_BYTES = 1300  # about


class Config(SourceConfig):
    """The number of dialogues, and the seed."""

    kind: Literal["tale_dialogues"] = Field(
        default="tale_dialogues", description="Generate dialogues about the built-in tales."
    )
    documents: int = Field(default=12_000, gt=0, le=MANY, description="Number of dialogues.")
    seed: int = Field(
        default=1337, ge=0, lt=SEEDS, description="Seed of the generator. A seed always gives the same dialogues."
    )


def inputs(config: Config) -> list[Path]:
    """Return no files: the dialogues are generated."""
    return []


def survey(config: Config, *, on_event: Listener = ignore) -> Survey:
    """Return parts of enough dialogues each to be worth a process."""
    starts = range(0, config.documents, _PART_DIALOGUES)
    parts = [(first, min(first + _PART_DIALOGUES, config.documents)) for first in starts]
    name = f"tale-dialogues/{config.seed}"
    return Survey(
        tuple(Part(name, (end - first) * _DIALOGUE_BYTES, (first, end)) for first, end in parts),
        revision=f"seed-{config.seed}",
        licence=LICENCE,
    )


def read(config: Config, parts: Sequence[Part], *, revision: str | None = None, on_event: Listener = ignore) -> Items:
    """Yield the dialogues of `parts`, in order."""
    for part in parts:
        for index in range(*part.where):
            messages = dialogue(seed=config.seed, index=index)
            yield Document(render(messages), origin=f"{part.name}#{index}", conversation=messages)
