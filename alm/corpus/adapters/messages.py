"""Kind `messages`: rows with a list of `{role, content}`, as in chat interfaces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from alm.config import base
from alm.corpus.adapters import Talk, each_list, named
from alm.corpus.document import BESIDE_MESSAGES, Dropped
from alm.corpus.rows import Rejected, Row

SPANS_ROWS = False
_OWN = ("messages", "conversation")


class Config(base.Config):
    """No settings."""

    kind: Literal["messages"] = Field(
        default="messages", description="Rows with a list of messages, each with `role` and `content`."
    )


def columns(config: Config, field: str) -> tuple[str, ...]:
    """Return the fields that may hold the list, and those that are counted beside it."""
    return (*named(field, *_OWN), *BESIDE_MESSAGES)


def conversations(
    config: Config, rows: Iterator[Row | Dropped], *, field: str, max_document_bytes: int
) -> Iterator[Talk | Dropped | Rejected]:
    """Yield the conversation of each row."""
    return each_list(rows, keys=named(field, *_OWN), role="role", content="content")
