"""Kind `stdin`: standard input in any format. A file stores it during preparation, as it can be read only once."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from alm.artifacts import as_text
from alm.corpus.document import Items, Part, Survey
from alm.corpus.paths import Paths
from alm.corpus.sources import SPOOL, files
from alm.errors import InputError
from alm.events import Listener, ignore
from alm.files import atomic, chunks

_NAME = "stdin"


class Config(files.Config):
    """The keys of the source `files`; the paths are filled in."""

    kind: Literal["stdin"] = Field(default="stdin", description="Read standard input.")  # type: ignore[assignment]
    paths: Paths = Field(default=("-",), description="File that stores standard input; filled in.")


def take_in(config: Config, state: Path) -> Config:
    """Write standard input to a file in `state`. Return `config` with the path of that file."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("standard input is a terminal", hint="pipe text into it: `cat my.txt | alm corpus prepare -`")
    with atomic(state / SPOOL) as file:
        for data in _standard_input():
            file.write(data)
    return config.model_copy(update={"paths": (as_text(state / SPOOL),)})


def _standard_input() -> Iterator[bytes]:
    try:
        yield from chunks(sys.stdin.buffer)
    except OSError as error:
        raise InputError(
            f"standard input cannot be read: {error.strerror or error}",
            hint="pipe text into it: `cat my.txt | alm corpus prepare -`",
        ) from error


def inputs(config: Config) -> list[Path]:
    """Return the file that stores standard input."""
    return [] if config.paths == ("-",) else files.inputs(config)


def survey(config: Config, *, on_event: Listener = ignore) -> Survey:
    """Return the parts of that file."""
    return files.survey(config, on_event=on_event)


def read(config: Config, parts: Sequence[Part], *, revision: str | None = None, on_event: Listener = ignore) -> Items:
    """Yield the documents, with `stdin` in their origins in place of the file."""
    spool = config.paths[0]
    for item in files.read(config, parts, revision=revision, on_event=on_event):
        yield dataclasses.replace(item, origin=item.origin.replace(spool, _NAME, 1))
