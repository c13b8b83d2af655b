"""Kinds of adapter: how rows (mappings of field to value) become documents. Each module has

- `Config`, the keys of the adapter,
- `columns(config, field)`, the top-level fields that it looks at, or None for all; not all of them need be there,
- `SPANS_ROWS`, whether several rows may make one document, so that a file cannot be cut between any two,
- `documents(config, rows, *, field, max_document_bytes)`, an iterator of a `Document`, or an `Unfit`
  (`alm.corpus.rows`), for each `Row`; what comes as `Dropped` is passed on.

Those for conversations also have `conversations`, of the same form, which yields a `Talk` in place of a document, and
their documents are those talks written out by `render`. `field` is the one that the configuration of the source names;
adapters for which its default would make no sense take that to mean their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from alm.config.base import did_you_mean
from alm.corpus.document import Document, Dropped
from alm.corpus.rows import Row, Unfit
from alm.errors import ConfigError, InputError

DEFAULT_FIELD = "text"
_ROLES = {
    "system": "system developer",
    "user": "user human prompter",
    "assistant": "assistant gpt chatgpt bot model function_call",
    "tool": "tool function observation",
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names.split()}


class Message(NamedTuple):
    """What one side says. `role` is `system`, `user`, `assistant` or `tool`."""

    role: str
    content: str


Conversation = tuple[Message, ...]


class Talk(NamedTuple):
    """A conversation, and the row that it comes from (the first, if there are several)."""

    conversation: Conversation
    row: Row


class ShapeError(Exception):
    """A row has another shape than its adapter expects; the message says which shape that is."""


def each(
    rows: Iterator[Row | Dropped],
    conversation_of: Callable[[Mapping[str, Any]], Conversation],
    *,
    keys: tuple[str, ...],
) -> Iterator[Talk | Dropped | Unfit]:
    """A conversation for each row. One of `keys` must be in it, and `conversation_of` raises `ShapeError`."""
    for row in rows:
        if not isinstance(row, Row):
            yield row
        elif not any(key in row.values for key in keys):
            yield no_field(row, keys)
        else:
            yield _talk(row, conversation_of)


def _talk(row: Row, conversation_of: Callable[[Mapping[str, Any]], Conversation]) -> Talk | Unfit:
    try:
        return Talk(conversation_of(row.values), row)
    except ShapeError as error:
        return unfit(row, str(error))


def unfit(row: Row, expected: str) -> Unfit:
    """The row does not have the shape that is `expected`."""
    return Unfit(
        "bad_shape",
        row,
        InputError(
            f"`{row.origin}` is not what the adapter reads: {expected}",
            hint="choose another one with `--set sources.<name>.adapter=...`",
        ),
    )


def no_field(row: Row, keys: tuple[str, ...]) -> Unfit:
    """The row has none of the fields `keys`."""
    there = ", ".join(row.values)
    named = "` or `".join(keys)
    error = ConfigError(
        f"`{row.origin}`: no field `{named}`{did_you_mean(keys[0], row.values)} (there are: {there})",
        hint="name the field that holds the text: `--set sources.<name>.field=...`, or what the rows are: "
        "`--set sources.<name>.adapter=...`",
    )
    return Unfit("no_field", row, error, stops="first")


def named(field: str, *own: str) -> tuple[str, ...]:
    """The fields to look for: `field` if it was chosen, the adapter's `own` otherwise."""
    return own if field == DEFAULT_FIELD else (field,)


def value_of(values: Mapping[str, Any], keys: tuple[str, ...]) -> Any:  # Any: JSON
    """The value of the first of `keys` that is there; one is."""
    return next(values[key] for key in keys if key in values)


def message(role: object, content: object) -> Message:
    """A message with its role by the one name that we use. Raises `ShapeError`."""
    known = _ROLE_OF.get(role.lower()) if isinstance(role, str) else None
    if known is None:
        raise ShapeError(f"a role is one of {', '.join(_ROLE_OF)}, not {role!r}")
    return Message(known, content_text(content))


def content_text(content: object) -> str:
    """The text of a message's content: a string, nothing, or the text parts of a list. Raises `ShapeError`."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        texts = [part.get("text") for part in content if part.get("type", "text") == "text"]
        if all(isinstance(text, str) for text in texts):
            return "\n".join(texts)
    raise ShapeError(f"the content of a message is a text or a list of texts, not {type(content).__name__}")


def render(conversation: Conversation) -> str:
    """A conversation as plain text: who says it, then what is said; messages without any text are left out."""
    return "\n\n".join(f"{role.capitalize()}: {content}" for role, content in conversation if content)


def rendered(talks: Iterator[Talk | Dropped | Unfit]) -> Iterator[Document | Dropped | Unfit]:
    """Each talk written out."""
    for talk in talks:
        yield Document(render(talk.conversation), talk.row.origin) if isinstance(talk, Talk) else talk
