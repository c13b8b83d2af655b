"""Kind `sharegpt`: rows with `conversations`, a list of `{from, value}`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from alm.config import base
from alm.corpus.adapters import Talk, each_list, named
from alm.corpus.document import BESIDE_MESSAGES, Dropped
from alm.corpus.rows import Rejected, Row

SPANS_ROWS = False
_OWN = ("conversations",)


class Config(base.Config):
    """No settings."""

    kind: Literal["sharegpt"] = Field(
        default="sharegpt", description="Rows with a list of `conversations`, each with `from` and `value`."
    )


def columns(config: Config, field: str) -> tuple[str, ...]:
    """Return the field that holds the list, and those beside it: of a system prompt, and those that are counted."""
    return (*named(field, *_OWN), *BESIDE_MESSAGES)


def conversations(
    config: Config, rows: Iterator[Row | Dropped], *, field: str, max_document_bytes: int
) -> Iterator[Talk | Dropped | Rejected]:
    """Yield the conversation of each row."""
    return each_list(rows, keys=named(field, *_OWN), role="from", content="value", system="system")
