"""Kind `oasst`: trees of messages with ranked replies, as OpenAssistant publishes them, nested or flat.

In the nested form, a row is a tree: `prompt` is a message with `replies`, which may have replies too. In the flat form,
a row is a message with `message_id`, `parent_id` and `message_tree_id`, and the rows of a tree are consecutive. Each
tree yields the path of its best ranked replies: rank 0 is best, and the first of equals wins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from alm.config import base
from alm.corpus.adapters import ShapeError, Talk, message, no_field, unfit
from alm.corpus.conversations import Conversation, Message
from alm.corpus.document import Dropped
from alm.corpus.rows import Rejected, Row
from alm.errors import InputError

SPANS_ROWS = True
_FLAT = ("message_id", "parent_id", "message_tree_id", "text", "role", "rank", "deleted")
_Node = Mapping[str, Any]  # Any: JSON


class Config(base.Config):
    """No settings. The source's `field` is not used."""

    kind: Literal["oasst"] = Field(
        default="oasst", description="OpenAssistant's trees, nested or one message a row; the best ranked path of each."
    )


def columns(config: Config, field: str) -> tuple[str, ...]:
    """Return the fields of both forms."""
    return ("prompt", *_FLAT)


def conversations(
    config: Config, rows: Iterator[Row | Dropped], *, field: str, max_document_bytes: int
) -> Iterator[Talk | Dropped | Rejected]:
    """Yield the best path of each tree."""
    tree: list[Row] = []
    size = 0
    for row in rows:
        if not isinstance(row, Row):
            yield row
            continue
        if tree and _tree_id(row) != _tree_id(tree[0]):
            yield _flat(tree, size, max_document_bytes)
            tree, size = [], 0
        if _tree_id(row) is None:
            yield _nested(row)
        else:
            size += row.size()
            tree.append(row)
            if size > max_document_bytes:
                del tree[1:]  # the tree is too long and left out: its first row is enough to name it
    if tree:
        yield _flat(tree, size, max_document_bytes)


def _tree_id(row: Row) -> str | None:
    """Return the tree that a flat row belongs to; None for any other row."""
    tree = None if "prompt" in row.values else row.values.get("message_tree_id")
    return tree if isinstance(tree, str) else None


def _nested(row: Row) -> Talk | Rejected:
    if "prompt" not in row.values:
        return no_field(row, ("prompt", "message_tree_id"))
    try:
        return Talk(_best_path(row.values["prompt"], _replies), row)
    except ShapeError as error:
        return unfit(row, str(error))


def _replies(node: _Node) -> Sequence[_Node]:
    replies = node.get("replies") or []
    if not isinstance(replies, list):
        raise ShapeError("`replies` should hold a list of messages")
    return replies


def _flat(tree: Sequence[Row], size: int, most: int) -> Talk | Rejected:
    """Return the best path of the tree whose messages are the rows `tree`."""
    if size > most:
        error = InputError(f"`{tree[0].origin}`: the tree that starts here has {size:,} bytes, more than {most:,}")
        return Rejected("too_long", Row(tree[0].values, tree[0].origin, size), error, stops="never")
    replies: dict[object, list[_Node]] = {}
    for row in tree:
        replies.setdefault(row.values.get("parent_id"), []).append(row.values)
    try:
        root = next(iter(replies.get(None, ())), None)
        return Talk(_best_path(root, lambda node: replies.pop(node.get("message_id"), ())), tree[0])
    except ShapeError as error:
        return unfit(tree[0], str(error))


def _best_path(root: object, replies_of: Callable[[_Node], Sequence[_Node]]) -> Conversation:
    """Follow the best reply to each message, from `root` on."""
    path: list[Message] = []
    node = root
    while node is not None or not path:
        if not isinstance(node, dict) or not isinstance(node.get("text"), str):
            raise ShapeError("a tree should begin with a message, which has `text`, `role` and optional `replies`")
        path.append(message(node.get("role"), node["text"]))
        replies = [reply for reply in replies_of(node) if not (isinstance(reply, dict) and reply.get("deleted"))]
        node = min(replies, key=_rank, default=None)
    return tuple(path)


def _rank(reply: object) -> float:
    rank = reply.get("rank") if isinstance(reply, dict) else None
    return rank if isinstance(rank, int | float) and not math.isnan(rank) else math.inf
