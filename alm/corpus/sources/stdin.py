"""Kind `stdin`: standard input, of whatever format. It is kept in a file while it is prepared, because it comes but
once."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from alm.corpus.document import Items, Part, Survey
from alm.corpus.paths import Paths
from alm.corpus.sources import files
from alm.errors import InputError
from alm.events import Listener, ignore
from alm.files import atomic

SPOOL = "input"
_NAME = "stdin"


class Config(files.Config):
    """What a source of files has; the paths are filled in."""

    kind: Literal["stdin"] = Field(default="stdin", description="Read standard input.")  # type: ignore[assignment]
    paths: Paths = Field(default=("-",), description="Where standard input is kept; filled in.")


def take_in(config: Config, state: Path) -> Config:
    """`config` reading the file in `state` that standard input was written to."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("standard input is a terminal", hint="pipe text into it: `cat my.txt | alm corpus prepare -`")
    with atomic(state / SPOOL) as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return config.model_copy(update={"paths": ((state / SPOOL).as_posix(),)})


def inputs(config: Config) -> list[Path]:
    """The file that standard input was written to."""
    return [] if config.paths == ("-",) else files.inputs(config)


def survey(config: Config, *, on_event: Listener = ignore) -> Survey:
    """As of a file."""
    return files.survey(config, on_event=on_event)


def read(config: Config, parts: Sequence[Part], *, revision: str | None = None, on_event: Listener = ignore) -> Items:
    """The documents, which come from `stdin`."""
    spool = config.paths[0]
    for item in files.read(config, parts, revision=revision, on_event=on_event):
        yield dataclasses.replace(item, origin=item.origin.replace(spool, _NAME, 1))
