"""The items that a source yields: documents, and what it left out, so that every byte is counted."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

from alm.corpus.conversations import Conversation

REPLACED = "replaced_characters"
UNCLOSED = "unclosed_markup"
FIELD_OF_MESSAGE = "message."  # begins the name of a field of a message that is lost
FIELD_OF_ROW = "row."  # the same for a field of a row, beside its messages
# Fields beside messages that belong to the conversation, and that no adapter puts into the text (some read `system`).
BESIDE_MESSAGES = (
    *("system", "system_prompt", "tools", "functions", "history", "context", "documents"),
    *("reasoning", "reasoning_content", "thinking", "images"),
)


@dataclass(frozen=True, slots=True)
class Document:
    """One text. `origin` is the place that it came from, unique within its source.

    `is_web` marks raw web pages: with `filters: auto` they get the full filters. `lost` names what a reader found and
    could not put into the text, with numbers: characters that cannot be decoded, fields beside the text of a message.
    `conversation` has the messages of which `text` is made, if it is made of messages.
    """

    text: str
    origin: str
    is_web: bool = False
    lost: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    conversation: Conversation | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Bytes that a source read and left out, and the number of complete documents among them.

    `origin` and `excerpt` serve as an example in the report; both may be empty. `problem` is the message of the error
    that was skipped, if any.
    """

    reason: str
    bytes: int
    documents: int = 0
    origin: str = ""
    excerpt: str = ""
    problem: str = field(default="", compare=False)


Item = Document | Dropped
Items = Generator[Item, None, None]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a source's input that can be read on its own: a file, a range of one, some row groups.

    `name` is the file's path, or the source's name for it. `bytes` is its stored size. `where` identifies the
    piece, in numbers that only the source's kind understands; empty means the complete file.
    """

    name: str
    bytes: int
    where: tuple[int, ...] = ()


@dataclass(frozen=True)
class Survey:
    """The parts that a source has to read, in order, listed without reading them."""

    parts: tuple[Part, ...]
    revision: str | None = None
    licence: str | None = None


def utf8_bytes(text: str) -> int:
    """Return the length of `text` in UTF-8. A lone surrogate, which UTF-8 cannot encode, counts as three bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
