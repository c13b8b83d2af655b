"""Kind `messages`: rows with a list of `{role, content}`, as in chat interfaces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from alm.config import base
from alm.corpus.adapters import Conversation, ShapeError, Talk, each, message, named, rendered, value_of
from alm.corpus.document import Document, Dropped
from alm.corpus.rows import Rejected, Row

SPANS_ROWS = False
_OWN = ("messages", "conversation")


class Config(base.Config):
    """No settings."""

    kind: Literal["messages"] = Field(
        default="messages", description="Rows with a list of messages, each with `role` and `content`."
    )


def columns(config: Config, field: str) -> tuple[str, ...]:
    """Return the fields that may hold the list."""
    return named(field, *_OWN)


def documents(
    config: Config, rows: Iterator[Row | Dropped], *, field: str, max_document_bytes: int
) -> Iterator[Document | Dropped | Rejected]:
    """Yield each conversation as text."""
    return rendered(conversations(config, rows, field=field, max_document_bytes=max_document_bytes))


def conversations(
    config: Config, rows: Iterator[Row | Dropped], *, field: str, max_document_bytes: int
) -> Iterator[Talk | Dropped | Rejected]:
    """Yield the conversation of each row."""
    keys = named(field, *_OWN)

    def conversation_of(values: Mapping[str, Any]) -> Conversation:
        messages = value_of(values, keys)
        if not isinstance(messages, list) or not all(isinstance(m, dict) and "role" in m for m in messages):
            raise ShapeError(f"`{'` or `'.join(keys)}` should hold a list of objects with `role` and `content`")
        return tuple(message(m["role"], m.get("content")) for m in messages)

    return each(rows, conversation_of, keys=keys)
