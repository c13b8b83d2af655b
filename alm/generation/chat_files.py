"""Conversations as files: rows of `messages`, as `alm corpus prepare` reads them, and pages for people."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from alm import files, shown
from alm.errors import InputError, absent_hint
from alm.generation.chat import ChatMessage

_ROLES = ("system", "user", "assistant")
_MOST_BYTES = 1 << 26


def folder_of_user(environment: Mapping[str, str] = os.environ, *, platform: str = sys.platform) -> Path:
    """Return where conversations are kept: a folder among the data of the user, by the convention of the platform."""
    if platform == "win32":
        base = Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "alm" / "conversations"


def new_path(folder: Path, model: str, *, now: datetime) -> Path:
    """Return a name in `folder` for a conversation with `model` that begins now; no file has it."""
    name = re.sub(r"[^\w.-]+", "-", model) or "model"
    stem = f"{now:%Y-%m-%d-%H%M%S}-{name}"
    names = (stem if number == 1 else f"{stem}-{number}" for number in range(1, sys.maxsize))
    return next(path for path in (folder / f"{each}.jsonl" for each in names) if not os.path.lexists(path))


def newest(folder: Path, *, besides: Path | None = None) -> Path:
    """Return the conversation in `folder` that was written last. InputError if there is none."""
    found = [path for path in folder.glob("*.jsonl") if path != besides] if folder.is_dir() else []
    if not found:
        raise InputError(f"there is no other conversation in `{folder}`", hint="name a file: `/load PATH`")
    return max(found, key=lambda path: (path.stat().st_mtime, path.name))


def save(path: Path, messages: Sequence[ChatMessage]) -> None:
    """Write a conversation as a row of `messages`. An answer that was cut has weight 0: training leaves it out."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_text(
        path, json.dumps({"messages": [row_of(message) for message in messages]}, ensure_ascii=False) + "\n"
    )


def row_of(message: ChatMessage) -> dict[str, Any]:  # Any: JSON
    """Return a message as `messages` hold it."""
    row = {"role": message.role, "content": message.content}
    return {**row, "weight": 0} if message.is_cut else row


def load(path: Path) -> list[ChatMessage]:
    """Return the conversation in `path`, the last one if the file has several. InputError for anything else."""
    if not path.is_file():
        raise InputError(f"there is no file `{path}`", hint=absent_hint(path))
    lines = [
        line for line in files.as_text(path, files.bounded_bytes(path, most=_MOST_BYTES)).split("\n") if line.strip()
    ]
    try:
        if not lines:
            raise ValueError("it is empty")
        return messages_of(files.parse_row(lines[-1]))
    except ValueError as error:
        raise InputError(
            f"`{path}` holds no conversation in its last line: {error}",
            hint='a line is `{"messages": [{"role": "user", "content": "..."}, ...]}`',
        ) from error


def messages_of(row: object) -> list[ChatMessage]:
    """Return the messages of a row. ValueError for a row that is not a conversation."""
    given = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(given, list):
        raise ValueError("it has no list `messages`")
    found = []
    for number, message in enumerate(given, 1):
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if role not in _ROLES or not isinstance(content, str):
            raise ValueError(f"message {number} needs a role ({', '.join(_ROLES)}) and its content as text")
        is_cut = role == "assistant" and message.get("weight") == 0
        found.append(ChatMessage(role, clean(content), end="interrupted" if is_cut else None))
    return found


def clean(text: str) -> str:
    """Return `text` with U+FFFD for bytes that were not UTF-8, which no file could hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def page(messages: Sequence[ChatMessage]) -> str:
    """Return a conversation as Markdown for people, in which no text commands a terminal."""
    heads = (f"## {message.role}{' (cut)' if message.is_cut else ''}" for message in messages)
    return "\n".join(f"{head}\n\n{shown.text(each.content)}\n" for head, each in zip(heads, messages, strict=True))
