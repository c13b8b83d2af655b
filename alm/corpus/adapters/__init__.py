"""Kinds of adapter, which turn rows (mappings of field to value) into documents. Each module has

- `Config`, the keys of the adapter,
- `columns(config, field)`, the top-level fields that it reads, or None for all; fields may be absent,
- `SPANS_ROWS`, whether several rows may make one document, so that a file cannot be cut between any two,
- `documents(config, rows, *, field, max_document_bytes)`, an iterator of a `Document`, or a `Rejected`
  (`alm.corpus.rows`), for each `Row`; it passes on each `Dropped`,
- or `conversations`, with the same parameters, which yields a `Talk` in place of a document; `items` renders these.

`items` applies an adapter and `on_bad_input`. `field` comes from the configuration of the source. Adapters for which
its default makes no sense use a field name of their own instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from alm import kinds
from alm.config.base import Config, did_you_mean
from alm.corpus.conversations import Conversation, Message, render
from alm.corpus.document import BESIDE_MESSAGES, FIELD_OF_MESSAGE, FIELD_OF_ROW, Document, Dropped, Item, utf8_bytes
from alm.corpus.rows import EXCERPT_CHARACTERS, OnBadInput, Rejected, Row, with_way_out
from alm.errors import ConfigError, InputError, quoted

DEFAULT_FIELD = "text"
_WEIGHT = "weight"  # of a message
_ROLES = {
    "system": "system developer",
    "user": "user human prompter",
    "assistant": "assistant gpt chatgpt bot model function_call",
    "tool": "tool function observation",
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names.split()}


class Talk(NamedTuple):
    """A conversation, and the row that it comes from (the first if there are several). `lost` is as in `Document`."""

    conversation: Conversation
    row: Row
    lost: tuple[tuple[str, int], ...] = ()


class ShapeError(Exception):
    """A row does not have the shape that its adapter expects; the message describes that shape.

    `key` is the adapter's setting to change, if one names a field without text.
    """

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


def each(
    rows: Iterator[Row | Dropped],
    conversation_of: Callable[[Mapping[str, Any]], Conversation],
    *,
    keys: tuple[str, ...],
    used: tuple[str, ...],
) -> Iterator[Talk | Dropped | Rejected]:
    """Yield a conversation for each row, made of its fields `used`.

    A row needs one of `keys`, and `conversation_of` may raise `ShapeError`.
    """
    for row in rows:
        if not isinstance(row, Row):
            yield row
        elif not any(key in row.values for key in keys):
            yield no_field(row, keys)
        else:
            yield _talk(row, conversation_of, used)


def each_list(
    rows: Iterator[Row | Dropped], *, keys: tuple[str, ...], role: str, content: str, system: str | None = None
) -> Iterator[Talk | Dropped | Rejected]:
    """Yield a conversation for each row. One of its fields `keys` holds a list of objects `{role, content}`.

    The field `system` may hold a system prompt.
    """

    def conversation_of(values: Mapping[str, Any]) -> Conversation:
        messages = next(values[key] for key in keys if key in values)
        if not isinstance(messages, list) or not all(isinstance(each, dict) and role in each for each in messages):
            raise ShapeError(f"`{'` or `'.join(keys)}` should hold a list of objects with `{role}` and `{content}`")
        prompt = values.get(system) if system else None
        begin = (Message("system", prompt),) if prompt and isinstance(prompt, str) else ()
        return (*begin, *(message(each[role], each.get(content), each.get(_WEIGHT)) for each in messages))

    for talk in each(rows, conversation_of, keys=keys, used=(*keys, system) if system else keys):
        if isinstance(talk, Talk):
            messages = next(talk.row.values[key] for key in keys if key in talk.row.values)
            yield talk._replace(lost=(*_beside(messages, role=role, content=content), *talk.lost))
        else:
            yield talk


def _beside(messages: Sequence[Mapping[str, Any]], *, role: str, content: str) -> tuple[tuple[str, int], ...]:
    """Count what `messages` hold beside their text: other fields that are not empty, and parts of other types."""
    lost: Counter[str] = Counter()
    for each in messages:
        beside = [name for name, value in each.items() if value and name not in (role, content, _WEIGHT)]
        parts = each.get(content)
        if isinstance(parts, list):
            typed = [part for part in parts if isinstance(part, dict)]
            beside += [f"{content}[{part['type']}]" for part in typed if part.get("type", "text") != "text"]
        lost.update(f"{FIELD_OF_MESSAGE}{name}" for name in beside)
    return tuple(sorted(lost.items()))


def _talk(
    row: Row, conversation_of: Callable[[Mapping[str, Any]], Conversation], used: tuple[str, ...]
) -> Talk | Rejected:
    try:
        conversation = conversation_of(row.values)
    except ShapeError as error:
        return unfit(row, str(error), key=error.key)
    said = [content for _, content, _ in conversation if content]
    lost = [name for name, value in row.values.items() if value and name not in used and _is_lost(name, value, said)]
    return Talk(conversation, row, tuple((f"{FIELD_OF_ROW}{name}", 1) for name in sorted(lost)))


def _is_lost(name: str, value: object, said: Sequence[str]) -> bool:
    """Whether the field beside messages holds words, rather than a number or a name, that the messages do not hold."""
    if isinstance(value, str):
        is_text = name in BESIDE_MESSAGES or len(value.split()) > 1
        return is_text and not any(value in each or each in value for each in said)
    return isinstance(value, dict | list) and (name in BESIDE_MESSAGES or any(" " in text for text in texts_in(value)))


def texts_in(value: object) -> Iterator[str]:
    """Yield the strings in a JSON value."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict | list):
            waiting += one.values() if isinstance(one, dict) else one


def unfit(row: Row, expected: str, *, key: str | None = None) -> Rejected:
    """Make a `Rejected` for a row that does not have the `expected` shape; `key` as in `ShapeError`."""
    text = _text_field(row)
    other = f"name the field with `--set sources.<name>.adapter.{key}={text}`, or " if key else ""
    return Rejected(
        "bad_shape",
        row,
        InputError(
            f"`{row.origin}` is not what the adapter reads: {expected}",
            hint=f"{other}choose another adapter with `--set sources.<name>.adapter=...`: {_adapters()}",
        ),
    )


def no_field(row: Row, keys: tuple[str, ...]) -> Rejected:
    """Make a `Rejected` for a row that has none of the fields `keys`."""
    there = ", ".join(row.values)
    named = "` or `".join(keys)
    text = _text_field(row)
    error = ConfigError(
        f"`{row.origin}`: no field `{named}`{did_you_mean(keys[0], row.values)} (there are: {there})",
        hint=f"name the field that holds the text: `--set sources.<name>.field={text}`, or the kind "
        f"of rows: `--set sources.<name>.adapter=...`: {_adapters()}",
    )
    return Rejected("no_field", row, error, stops="first")


def _text_field(row: Row) -> str:
    """Return the name of the field of `row` with the longest text, the likeliest, for a command; `...` if none has."""
    texts = [name for name, value in row.values.items() if isinstance(value, str)]
    return quoted(max(texts, key=lambda name: len(row.values[name]))) if texts else "..."


def _adapters() -> str:
    return ", ".join(kinds.names(__name__))


def named(field: str, *own: str) -> tuple[str, ...]:
    """Return the fields to read: `field` if it was set, the adapter's `own` otherwise."""
    return own if field == DEFAULT_FIELD else (field,)


def message(role: object, content: object, weight: object = None) -> Message:
    """Make a message, with its role translated to one of our four names. Raises `ShapeError`."""
    known = _ROLE_OF.get(role.lower()) if isinstance(role, str) else None
    if known is None:
        raise ShapeError(f"a role must be one of {', '.join(_ROLE_OF)}, not {role!r}")
    if weight not in (None, 0, 1):
        raise ShapeError(f"the weight of a message must be 0 or 1, not {weight!r}")
    return Message(known, content_text(content), 1 if weight is None else int(weight == 1))


def content_text(content: object) -> str:
    """Return the text of a message's content: a string, null, or a list with text parts. Raises `ShapeError`."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list) and all(isinstance(part, dict | str) for part in content):
        parts = [{"text": part} if isinstance(part, str) else part for part in content]
        texts: list[Any] = [part.get("text") for part in parts if part.get("type", "text") == "text"]
        if all(isinstance(text, str) for text in texts):
            return "\n".join(texts)
    raise ShapeError(f"the content of a message must be a text or a list of texts, not {type(content).__name__}")


def items(
    rows: Iterator[Row | Dropped],
    *,
    adapter: Config,
    field: str,
    on_bad_input: OnBadInput,
    max_document_bytes: int,
    begins: bool = True,
) -> Iterator[Item]:
    """Yield the documents that `adapter` makes of `rows`, and what was left out, in order.

    `begins`: the rows start a file, whose first row must have the field unless bad input is skipped.
    Raises `ConfigError` and `InputError`.
    """
    for item in _adapted(rows, adapter, field, max_document_bytes):
        if isinstance(item, Document):
            yield item if len(item.text) * 4 <= max_document_bytes else _bounded(item, max_document_bytes)
        elif isinstance(item, Rejected):
            if on_bad_input == "stop" and (item.stops == "always" or (item.stops == "first" and begins)):
                raise with_way_out(item.error) if isinstance(item.error, InputError) else item.error
            yield item.dropped()
        elif isinstance(item, Dropped):
            yield item
            continue
        begins = False


def check(rows: Iterator[Row | Dropped], *, adapter: Config, field: str, max_document_bytes: int) -> bool:
    """Raise an error if the first row does not have the field. Return False if there is no row."""
    for item in _adapted(rows, adapter, field, max_document_bytes):
        if isinstance(item, Rejected) and item.stops == "first":
            raise item.error
        if not isinstance(item, Dropped):
            return True
    return False


def _adapted(
    rows: Iterator[Row | Dropped], adapter: Config, field: str, max_document_bytes: int
) -> Iterator[Document | Dropped | Rejected]:
    module = kinds.module_of(adapter)
    if hasattr(module, "conversations"):
        for talk in module.conversations(adapter, rows, field=field, max_document_bytes=max_document_bytes):
            if isinstance(talk, Talk):
                conversation = talk.conversation
                yield Document(render(conversation), talk.row.origin, lost=talk.lost, conversation=conversation)
            else:
                yield talk
    else:
        yield from module.documents(adapter, rows, field=field, max_document_bytes=max_document_bytes)


def _bounded(document: Document, most: int) -> Item:
    size = utf8_bytes(document.text)
    if size <= most:
        return document
    excerpt = document.text[:EXCERPT_CHARACTERS]
    return Dropped("too_long", size, documents=1, origin=document.origin, excerpt=excerpt)
