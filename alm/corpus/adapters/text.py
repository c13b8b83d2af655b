"""Kind `text`: one field of a row is the document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from alm.config import base
from alm.corpus.adapters import no_field
from alm.corpus.document import Document, Dropped
from alm.corpus.rows import Rejected, Row
from alm.errors import InputError

SPANS_ROWS = False
_ABSENT = object()


class Config(base.Config):
    """No settings: the source's `field` names the field."""

    kind: Literal["text"] = Field(default="text", description="One field of each row is a document.")


def columns(config: Config, field: str) -> tuple[str, ...]:
    """Return the field, and the object that may contain it."""
    return tuple(dict.fromkeys((field, field.partition(".")[0])))


def documents(
    config: Config, rows: Iterator[Row | Dropped], *, field: str, max_document_bytes: int
) -> Iterator[Document | Dropped | Rejected]:
    """Yield the text of each row."""
    is_path = "." in field
    for row in rows:
        if isinstance(row, Row):
            text = row[0].get(field, _ABSENT)
            if type(text) is str:
                yield Document(text, row[1])
            else:
                yield _reached(row, field) if is_path and text is _ABSENT else _refused(row, field, text)
        else:
            yield row


def _reached(row: Row, path: str) -> Document | Rejected:
    """Return the text at the end of `path`, whose dots lead into objects."""
    value: Any = row.values
    for name in path.split("."):
        value = value.get(name, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return Document(value, row.origin) if isinstance(value, str) else _refused(row, path, value)


def _refused(row: Row, field: str, value: object) -> Rejected:
    if value is _ABSENT:
        return no_field(row, (field,))
    error = InputError(f"`{row.origin}`: field `{field}` holds {type(value).__name__}, not text")
    return Rejected("not_text", row, error, stops="never")
