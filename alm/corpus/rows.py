"""Rows: the same for files and for the hub.

A format yields `Row`s, and a `Dropped` for anything that is not a row. An adapter (`alm.corpus.adapters`) turns rows
into documents, and a row that it cannot use into a `Rejected`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from alm.corpus.document import Dropped, utf8_bytes
from alm.errors import AlmError, InputError

OnBadInput = Literal["stop", "skip"]
EXCERPT_CHARACTERS = 300
SKIP_HINT = "skip bad input with `--set sources.<name>.on_bad_input=skip`"


class Row(NamedTuple):
    """One row: its values by field, its place, and its stored size in bytes, or 0 if that is unknown."""

    values: Mapping[str, Any]  # Any: JSON
    origin: str
    bytes: int = 0

    def size(self) -> int:
        """Return the size in bytes, that of its JSON if the stored size is unknown."""
        return self.bytes or utf8_bytes(self._as_json())

    def excerpt(self) -> str:
        """Return the beginning of the row, for display."""
        return self._as_json()[:EXCERPT_CHARACTERS]

    def _as_json(self) -> str:
        return json.dumps(self.values, ensure_ascii=False, default=str)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that an adapter cannot use, and the error for it.

    `stops` applies with `on_bad_input: stop`. The error is raised always, only for the first row (the configuration
    names a field that does not exist), or never, because single rows like it are expected.
    """

    reason: str
    row: Row
    error: AlmError
    stops: Literal["always", "first", "never"] = "always"

    def dropped(self) -> Dropped:
        """Return the item to count when the row is skipped."""
        problem = self.error.message if self.stops == "always" else ""
        return Dropped(self.reason, self.row.size(), 1, self.row.origin, self.row.excerpt(), problem)


def left_out(dropped: Dropped, error: InputError, *, on_bad_input: OnBadInput) -> Dropped:
    """Return `dropped` if bad input is skipped; otherwise raise `error`, with a hint that says how to skip it."""
    if on_bad_input == "stop":
        raise with_way_out(error) from error.__cause__
    return dataclasses.replace(dropped, problem=error.message)


def with_way_out(error: InputError) -> InputError:
    """Return `error` with a hint that says how to skip bad input."""
    if error.hint is not None and SKIP_HINT in error.hint:
        return error
    hint = f"{error.hint}; or {SKIP_HINT}" if error.hint else SKIP_HINT
    return InputError(error.message, hint=hint)
