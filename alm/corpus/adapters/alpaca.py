"""Kind `alpaca`: rows with an instruction, an optional input, and the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from alm.config import base
from alm.corpus.adapters import ShapeError, Talk, each
from alm.corpus.conversations import Conversation, Message
from alm.corpus.document import BESIDE_MESSAGES, Dropped
from alm.corpus.rows import Rejected, Row

SPANS_ROWS = False


class Config(base.Config):
    """The names of the fields. The source's `field` is not used."""

    kind: Literal["alpaca"] = Field(default="alpaca", description="Rows with an instruction, an input and an output.")
    instruction: str = Field(default="instruction", description="Field with the question: `prompt`, `question`.")
    input: str = Field(default="input", description="Field with the text that the instruction refers to, if any.")
    output: str = Field(default="output", description="Field with the answer: `response`, `answer`.")
    system: str = Field(default="system", description="Field with the system prompt, if any.")


def columns(config: Config, field: str) -> tuple[str, ...]:
    """Return the four fields, and those that are counted beside them."""
    return (*_used(config), *BESIDE_MESSAGES)


def _used(config: Config) -> tuple[str, ...]:
    return config.instruction, config.input, config.output, config.system


def conversations(
    config: Config, rows: Iterator[Row | Dropped], *, field: str, max_document_bytes: int
) -> Iterator[Talk | Dropped | Rejected]:
    """Yield the question and answer of each row."""

    def conversation_of(values: Mapping[str, Any]) -> Conversation:
        asked = [_text(values, config, "instruction"), _text(values, config, "input", default="")]
        question = "\n\n".join(text for text in asked if text)
        system = _text(values, config, "system", default="")
        begin = (Message("system", system),) if system else ()
        return (*begin, Message("user", question), Message("assistant", _text(values, config, "output")))

    return each(rows, conversation_of, keys=(config.instruction,), used=_used(config))


def _text(values: Mapping[str, Any], config: Config, key: str, default: str | None = None) -> str:
    name = getattr(config, key)
    value = values.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise ShapeError(f"field `{name}` should hold text (there are: {', '.join(values)})", key=key)
    return value
