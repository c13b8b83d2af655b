"""Kind `sharegpt`: rows with `conversations`, a list of `{from, value}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from alm.config import base
from alm.corpus.adapters import Conversation, Message, ShapeError, Talk, each, message, named, rendered, value_of
from alm.corpus.document import Document, Dropped
from alm.corpus.rows import Rejected, Row

SPANS_ROWS = False
_OWN = ("conversations",)


class Config(base.Config):
    """No settings."""

    kind: Literal["sharegpt"] = Field(
        default="sharegpt", description="Rows with a list of `conversations`, each with `from` and `value`."
    )


def columns(config: Config, field: str) -> tuple[str, ...]:
    """Return the field that holds the list, and the field of a system prompt beside it."""
    return (*named(field, *_OWN), "system")


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
        turns = value_of(values, keys)
        if not isinstance(turns, list) or not all(isinstance(turn, dict) and "from" in turn for turn in turns):
            raise ShapeError(f"`{keys[0]}` should hold a list of objects with `from` and `value`")
        system = values.get("system")
        begin = (Message("system", system),) if system and isinstance(system, str) else ()
        return (*begin, *(message(turn["from"], turn.get("value")) for turn in turns))

    return each(rows, conversation_of, keys=keys)
