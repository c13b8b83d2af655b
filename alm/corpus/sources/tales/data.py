"""The tables of the tales, which are TOML files in `data/`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FOLDER = Path(__file__).parent / "data"
_SHARED = ("cast", "places", "words", "phrases")


class Row(SimpleNamespace):
    """A row of a table. Its columns are attributes, so that a shape can name them: `{place.the}`."""


def read(name: str) -> dict[str, Any]:
    """Return the content of a data file."""
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def rows(value: Any) -> Any:
    """Return `value` with a `Row` in the place of every mapping."""
    if isinstance(value, Mapping):
        return Row(**{column: rows(each) for column, each in value.items()})
    return [rows(each) for each in value] if isinstance(value, list) else value


@cache
def shared_tables() -> dict[str, Any]:
    """Return the tables that every plot can use."""
    return {table: rows(value) for name in _SHARED for table, value in read(name).items()}
