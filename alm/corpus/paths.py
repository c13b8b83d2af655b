"""Paths as people give them: files, folders and globs, one or several."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from alm.errors import InputError
from alm.files import suffix

Paths = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    # `texts/` and `./texts` are `texts`: another spelling must not look like another input.
    AfterValidator(lambda value: tuple(Path(path).as_posix() for path in value)),
    Field(min_length=1),
]


def expand(paths: Iterable[str], *, suffixes: frozenset[str]) -> list[Path]:
    """The files that `paths` mean, sorted and each once.

    A folder means the files below it with one of `suffixes` (compression set aside), hidden ones left
    out; a glob means what it matches; a file is itself whatever its name.
    """
    found: set[Path] = set()
    for given in paths:
        try:
            found.update(_files(given, suffixes))
        except (OSError, RuntimeError) as error:  # a name too long, a home of nobody, a folder that may not be read
            raise InputError(f"`{given}` cannot be read: {error}", hint="run `ls` to see what is there") from error
    return sorted(found, key=lambda path: path.as_posix())


def _files(given: str, suffixes: frozenset[str]) -> Iterable[Path]:
    path = Path(given).expanduser()
    if path.is_dir():
        return _below(path, suffixes)
    return [path] if path.is_file() else _matching(given, suffixes)


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
