"""Conversations: documents whose messages keep their roles beside the text.

The text of a conversation is what `render` makes of it. The place of each message in it follows from the roles and the
lengths of the messages, so these `Turns` are all that the stages of a preparation hand on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import NamedTuple

ROLES = ("system", "user", "assistant", "tool")
_quoted = json.encoder.encode_basestring


class Message(NamedTuple):
    """One message. `role` is one of `ROLES`; the `weight` of an answer is 1, or 0 if no model shall learn it."""

    role: str
    content: str
    weight: int = 1


Conversation = tuple[Message, ...]
Turns = tuple[tuple[str, int, int], ...]
"""Role, number of characters and weight of each message."""


def render(conversation: Conversation) -> str:
    """Render a conversation as plain text: role and content of each message. Messages without text are left out."""
    return "\n\n".join(f"{_heading(role)}{content}" for role, content, _ in conversation if content)


def _heading(role: str) -> str:
    return f"{role.capitalize()}: "


def turns_of(conversation: Conversation) -> Turns:
    """Return the turns of a conversation."""
    return tuple((role, len(content), weight) for role, content, weight in conversation)


def from_text(text: str, turns: Iterable[tuple[str, int, int]]) -> Conversation:
    """Return the conversation whose `text` and `turns` these are.

    >>> from_text("User: Hi\\n\\nAssistant: Yes?", (("user", 2, 1), ("assistant", 4, 1)))
    (Message(role='user', content='Hi', weight=1), Message(role='assistant', content='Yes?', weight=1))
    """
    messages = []
    end = 0
    for role, length, weight in turns:
        start = end + len(_heading(role)) if length else end
        messages.append(Message(role, text[start : start + length], weight))
        end = start + length + len("\n\n") if length else end
    return tuple(messages)


def changed(conversation: Conversation, change: Callable[[str], str]) -> Conversation:
    """Apply a `change` of texts to each message that has text."""
    return tuple(each._replace(content=change(each.content)) if each.content else each for each in conversation)


def to_json(conversation: Conversation) -> str:
    """Return the messages as a JSON list, as `json.dumps` would. All have the same keys, as tables need."""
    return f"[{', '.join(map(_to_json, conversation))}]"


def _to_json(message: Message) -> str:
    return f'{{"role": "{message.role}", "content": {_quoted(message.content)}, "weight": {message.weight}}}'


def from_rows(rows: object) -> Conversation:
    """Return the conversation of a JSON value that `to_json` wrote. Raises `ValueError` for any other."""
    if not isinstance(rows, list):
        raise ValueError("messages should be a list")
    return tuple(map(_from_row, rows))


def _from_row(row: object) -> Message:
    if not isinstance(row, dict):
        raise ValueError("a message should be an object")
    role, content, weight = row.get("role"), row.get("content"), row.get("weight", 1)
    if role not in ROLES or not isinstance(content, str) or type(weight) is not int or weight not in (0, 1):
        raise ValueError(f"a message should have a role ({', '.join(ROLES)}), a text and a weight of 0 or 1")
    return Message(role, content, weight)
