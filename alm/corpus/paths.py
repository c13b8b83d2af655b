"""Paths as people give them: files, folders and globs, one or several."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from alm.errors import InputError
from alm.files import suffix

Paths = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value), Field(min_length=1)
]


def expand(paths: Iterable[str], *, suffixes: frozenset[str]) -> list[Path]:
    """The files that `paths` mean, sorted and each once.

    A folder means the files below it with one of `suffixes` (compression set aside), hidden ones left
    out; a glob means what it matches; a file is itself whatever its name.
    """
    found: set[Path] = set()
    for given in paths:
        path = Path(given).expanduser()
        if path.is_dir():
            found.update(_below(path, suffixes))
        elif path.is_file():
            found.add(path)
        else:
            found.update(_matching(given, suffixes))
    return sorted(found, key=lambda path: path.as_posix())


def _below(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    listed = ", ".join(sorted(suffixes))
    found = [p for p in folder.rglob("*") if p.is_file() and suffix(p) in suffixes and not _is_hidden(p, folder)]
    if not found:
        raise InputError(
            f"the folder `{folder}` holds no file that ends in {listed}",
            hint=f"run `ls -R {folder}`, or name the files",
        )
    return found


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _matching(given: str, suffixes: frozenset[str]) -> list[Path]:
    matches = [Path(match) for match in glob.glob(str(Path(given).expanduser()), recursive=True)]
    if not matches:
        parent = Path(given).parent
        raise InputError(f"`{given}` does not exist", hint=f"run `ls {parent}` to see what is there")
    files = [match for match in matches if match.is_file()]
    return files + [path for match in matches if match.is_dir() for path in _below(match, suffixes)]
