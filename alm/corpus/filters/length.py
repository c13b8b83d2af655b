"""Kind `length`: documents that are too short or too long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from pydantic import Field

from alm.config import base
from alm.corpus.document import utf8_bytes
from alm.corpus.filters import Candidate, Drop, first_broken


class Config(base.Config):
    """Bounds in UTF-8 bytes and in words; an absent one sets no limit."""

    kind: Literal["length"] = Field(default="length", description="Drop documents that are too short or too long.")
    min_bytes: int | None = Field(default=None, ge=0, le=base.MANY, description="Minimum bytes.")
    max_bytes: int | None = Field(default=None, ge=1, le=base.MANY, description="Maximum bytes.")
    min_words: int | None = Field(default=None, ge=0, le=base.MANY, description="Minimum words.")
    max_words: int | None = Field(default=None, ge=1, le=base.MANY, description="Maximum words.")


def build(config: Config) -> Callable[[Candidate], Candidate | Drop]:
    """Build the filter."""
    return first_broken(lambda candidate: broken_rules(candidate, config))


def broken_rules(candidate: Candidate, config: Config) -> Iterator[str]:
    """Yield the bounds that the document breaks."""
    if config.min_bytes is not None or config.max_bytes is not None:
        size = utf8_bytes(candidate.text)
        if config.min_bytes is not None and size < config.min_bytes:
            yield "length_too_few_bytes"
        if config.max_bytes is not None and size > config.max_bytes:
            yield "length_too_many_bytes"
    if config.min_words is not None and len(candidate.words) < config.min_words:
        yield "length_too_few_words"
    if config.max_words is not None and len(candidate.words) > config.max_words:
        yield "length_too_many_words"
