"""`alm chat` without a terminal: messages from a flag or stdin, answers on stdout as they are, or as JSON."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from alm.cli import ui
from alm.errors import InputError

if TYPE_CHECKING:
    from alm.cli.chat_loop import Saving
    from alm.generation.chat import Conversation

_LINE = '`{"role": "user", "content": "..."}`'


def given(once: str | None, *, as_json: bool) -> Iterator[str]:
    """Yield the messages: `once`, or all of stdin; with `as_json`, stdin may have an object on each line.

    InputError for a message that is empty, or not UTF-8.
    """
    if once is not None and once != "-":
        yield _not_empty(once, "the message")
        return
    first = sys.stdin.buffer.readline() if as_json else b""
    if _content(first) is None:
        text = _decoded(first + sys.stdin.buffer.read())
        yield _not_empty(text.removesuffix("\n").removesuffix("\r"), "stdin")
        return
    number, line = 1, first
    while line:
        found = _content(line)
        if found is not None:
            yield _not_empty(found, f"the message in line {number} of stdin")
        elif line.strip():
            raise InputError(f"line {number} of stdin is not a message of a user", hint=f"write {_LINE} on each line")
        number, line = number + 1, sys.stdin.buffer.readline()


def answer_all(talk: Conversation, messages: Iterable[str], saving: Saving, *, as_json: bool) -> None:
    """Answer each of `messages` on stdout."""
    from alm.cli.chat_loop import stream
    from alm.generation.chat_files import clean

    if as_json and talk.system is not None:
        _show({"role": "system", "content": talk.system, "tokens": talk.model.count(talk.system)})
    for text in map(clean, messages):
        pieces = talk.ask(text)
        if as_json:
            _show({"role": "user", "content": text, "tokens": talk.model.count(text)})
        answer = stream(talk, pieces, saving)
        try:
            with contextlib.closing(answer):
                for piece in answer:
                    if not as_json:
                        ui.write_exact(piece)
        finally:
            saving.save(talk)
        if as_json:
            _show(_answered(talk))
        else:
            ui.write_exact("\n")


def _answered(talk: Conversation) -> dict[str, Any]:  # Any: JSON
    reply = talk.reply
    assert reply is not None
    return {
        "role": "assistant",
        "content": talk.messages[-1].content,
        "tokens": reply.tokens,
        "finish_reason": reply.end,
        "prompt_tokens": reply.prompt_tokens,
        "kept_tokens": reply.kept_tokens,
        "turns_left_out": reply.left_out,
        "seed": reply.seed,
        "first_seconds": round(reply.first_seconds, 4),
        "seconds": round(reply.seconds, 4),
    }


def _show(values: dict[str, Any]) -> None:  # Any: JSON
    ui.show_result(values, [], as_json=True)


def _content(line: bytes) -> str | None:
    """Return the text of a message of a user, written as a JSON object; None for anything else."""
    from alm import files

    try:
        found = files.parse_row(line)
    except ValueError:
        return None
    is_message = isinstance(found, dict) and found.get("role", "user") == "user"
    content = found.get("content") if is_message else None
    return content if isinstance(content, str) else None


def _decoded(data: bytes) -> str:
    from alm.corpus.normalize import with_newlines

    try:
        return with_newlines(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"`stdin` is not UTF-8 at byte {error.start}", hint="save the text as UTF-8") from error


def _not_empty(text: str, what: str) -> str:
    if not text.strip():
        raise InputError(f"{what} is empty", hint="write a message: `alm chat --once 'Hello!'`")
    return text
