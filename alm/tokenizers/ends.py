"""The ids that end what a model writes, beyond its tokenizer's end of text: kept beside the tokenizer of a run.

An imported model may have several, as Llama 3 and Qwen do for turns. The file has the name and the key of Hugging
Face's, so that other tools read the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alm.errors import InputError, shell
from alm.files import write_json
from alm.files.parse import read_json

NAME = "generation_config.json"
KEY = "eos_token_id"
_MOST = 256
_MOST_BYTES = 1 << 16


def write(folder: Path, ids: Sequence[int]) -> None:
    """Write the `ids`."""
    write_json(folder / NAME, {KEY: list(ids)})


def read(folder: Path, *, vocab_size: int) -> tuple[int, ...]:
    """Return the ids, none without the file; `InputError` if it does not list ids below `vocab_size`."""
    path = folder / NAME
    if not path.is_file():
        return ()
    values = read_json(path, most=_MOST_BYTES)
    ids = listed(values.get(KEY)) if isinstance(values, dict) else ()
    if not ids or not all(id_ < vocab_size for id_ in ids):
        raise InputError(
            f"`{path}` does not list ids from 0 to {vocab_size - 1:,} under `{KEY}`",
            hint=f"run `{shell('cat', path)}`; without this file a text ends at the tokenizer's end of text alone",
        )
    return ids


def listed(value: object) -> tuple[int, ...]:
    """Return an id, or those of a list, in their order; none if one of them is not an id, or there are too many."""
    given = value if isinstance(value, list) else [value]
    if len(given) > _MOST or not all(type(id_) is int and id_ >= 0 for id_ in given):
        return ()
    return tuple(dict.fromkeys(given))
