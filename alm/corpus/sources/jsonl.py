"""Kind `jsonl`: files of one JSON object a line, the text in a named field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from alm.config.base import did_you_mean
from alm.corpus.config import SourceConfig
from alm.corpus.document import Document, Dropped, Item, Items, Part, Survey
from alm.corpus.paths import Paths, expand
from alm.errors import InputError
from alm.events import Listener, ignore
from alm.files import not_utf8, open_binary

SUFFIXES = frozenset({".jsonl", ".ndjson"})


class Config(SourceConfig):
    """Files, folders or globs, and the field that holds the text."""

    kind: Literal["jsonl"] = "jsonl"
    paths: Paths = Field(description="Files, folders or globs; a folder means the JSON-lines files below it.")
    field: str = Field(default="text", description="Name of the field that holds the text.")
    licence: str | None = Field(default=None, description="Licence of the text, recorded with the corpus.")


def inputs(config: Config) -> list[Path]:
    """The files to read, sorted."""
    return expand(config.paths, suffixes=SUFFIXES)


def survey(config: Config, *, on_event: Listener = ignore) -> Survey:
    """Each file is a part."""
    parts = tuple(Part(path.as_posix(), path.stat().st_size) for path in inputs(config))
    return Survey(parts, licence=config.licence)


def read(config: Config, parts: Sequence[Part], *, revision: str | None = None, on_event: Listener = ignore) -> Items:
    """The documents of `parts`, in order."""
    for part in parts:
        yield from _items(Path(part.name), config)


def _items(path: Path, config: Config) -> Iterator[Item]:
    with open_binary(path) as file:
        offset = 0
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _item(line, path=path, number=number, offset=offset, field=config.field)
            offset += len(line)


def _item(line: bytes, *, path: Path, number: int, offset: int, field: str) -> Item:
    values = _parsed(line, path=path, number=number, offset=offset)
    if field not in values:
        raise InputError(
            f"`{path}` line {number}: no field `{field}`{did_you_mean(field, values)} (there are: {', '.join(values)})",
            hint="name the field that holds the text: `--set sources.<name>.field=...`",
        )
    text = values[field]
    if not isinstance(text, str):
        return Dropped("not_text", 0, documents=1)
    return Document(text, origin=f"{path.as_posix()}#{number}")


def _parsed(line: bytes, *, path: Path, number: int, offset: int) -> dict[str, Any]:  # Any: JSON
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise not_utf8(path, offset=offset + error.start, byte=line[error.start]) from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"`{path}` line {number} is not JSON: {error.msg} at column {error.colno}",
            hint=f"look at it with `sed -n {number}p {path}`, or read the file as text with `kind: text`",
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"`{path}` line {number} cannot be read as JSON: {error}", hint=f"look at it with `sed -n {number}p {path}`"
        ) from error
    if not isinstance(values, dict):
        raise InputError(
            f"`{path}` line {number} is a JSON {type(values).__name__}, an object is needed",
            hint=f"look at it with `sed -n {number}p {path}`",
        )
    return values
