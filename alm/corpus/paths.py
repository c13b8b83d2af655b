"""Input paths as users write them: files, folders and globs, one or several."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from alm.artifacts import readable_text
from alm.errors import InputError, absent_hint, shell
from alm.files import hint_for, suffix

_BYTE = re.compile(rb"\\x([89a-f][0-9a-f])")


def _as_texts(value: Any) -> Any:  # Any: raw YAML
    given = (value,) if isinstance(value, str) else value
    if not isinstance(given, list | tuple):
        return given
    return tuple(readable_text(path) if isinstance(path, str) else path for path in given)


def _spelled_alike(given: tuple[str, ...]) -> tuple[str, ...]:
    if any("\0" in path for path in given):
        raise ValueError("a path cannot hold a NUL character")
    # `texts/` and `./texts` are `texts`: a different spelling must not look like a different input.
    return tuple(Path(path).as_posix() for path in given)


# Paths as text that JSON can hold: see `from_text`.
Paths = Annotated[tuple[str, ...], BeforeValidator(_as_texts), AfterValidator(_spelled_alike), Field(min_length=1)]


def from_text(given: str) -> Path:
    r"""Return the path that `artifacts.as_text` wrote as `given`.

    `\xNN` stands for a byte, unless a file has that name literally.
    """
    path = Path(given)
    if os.name == "nt" or "\\x" not in given or os.path.lexists(path):
        return path
    data = _BYTE.sub(lambda found: bytes([int(found[1], 16)]), os.fsencode(given))
    other = Path(os.fsdecode(data))
    return other if os.path.lexists(other) else path


@dataclass(frozen=True, slots=True)
class Listed:
    """An existing file. `found` says how: by its name, by a glob, or in a folder.

    `below` is its path relative to that folder, or its name.
    """

    path: Path
    found: Literal["named", "glob", "folder"]
    below: str


@dataclass(frozen=True)
class Listing:
    """The files that were found, sorted by path, and the number of hidden files and folders that were skipped."""

    files: tuple[Listed, ...]
    hidden: int


def expand(paths: Iterable[str], *, suffixes: frozenset[str]) -> list[Path]:
    """Return the files that `paths` stand for, sorted and without repetitions.

    A folder stands for the files below it with one of `suffixes` (before any compression suffix), except hidden
    ones; a glob for its matches; a file for itself, whatever its name. Raises `InputError`.
    """
    found: list[_Found] = []
    for given in paths:
        files = [each for each in _walked(given)[0] if _is_wanted(each[2], suffixes)]
        if not files:
            listed = ", ".join(sorted(suffixes))
            raise InputError(
                f"the folder `{given}` holds no file that ends in {listed}",
                hint=f"run `{shell('ls', '-R', given)}`, or name the files",
            )
        found += files
    return [file.path for file in _once(found)]


def _is_wanted(file: Listed, suffixes: frozenset[str]) -> bool:
    return file.found != "folder" or suffix(file.path) in suffixes


def listing(paths: Iterable[str]) -> Listing:
    """Return every file that `paths` stand for, once each, however many links lead to it.

    A folder stands for all files below it except hidden ones. Raises `InputError` for a path that does not exist.
    """
    found: list[_Found] = []
    hidden = 0
    for given in paths:
        files, passed_over = _walked(given)
        found += files
        hidden += passed_over
    return Listing(_once(found), hidden)


_Found = tuple[str, bool, Listed]  # the file's real path, whether links lead to it, and how it was found


def _walked(given: str) -> tuple[list[_Found], int]:
    walk = _Walk()
    try:
        files = list(walk.files(given))
    except OSError as error:  # a closed folder, a name too long
        place = Path(error.filename or given)
        reason = error.strerror or error
        raise InputError(f"`{place}` cannot be read: {reason}", hint=hint_for(error, place)) from error
    except (RuntimeError, ValueError) as error:  # an unknown home, a NUL
        raise InputError(f"`{given}` cannot be read: {error}", hint="run `ls` to see what is there") from error
    return files, walk.hidden


def _once(found: Iterable[_Found]) -> tuple[Listed, ...]:
    """Keep one path for each file, preferably one without links, whatever the order in which they were found."""
    best: dict[str, tuple[tuple[bool, str], Listed]] = {}
    named: set[str] = set()
    for real, is_linked, file in found:
        rank = (is_linked, file.path.as_posix())
        if real not in best or rank < best[real][0]:
            best[real] = (rank, file)
        if file.found == "named":
            named.add(real)
    files = [Listed(f.path, "named", f.below) if real in named else f for real, (_, f) in best.items()]
    return tuple(sorted(files, key=lambda file: file.path.as_posix()))


class _Walk:
    """Walks folders, and counts the hidden entries that it skips."""

    def __init__(self) -> None:
        self.hidden = 0

    def files(self, given: str) -> Iterator[_Found]:
        """Yield the files that one path stands for."""
        path = from_text(given).expanduser()
        if path.is_dir():
            yield from self._below(path)
        elif path.is_file():
            yield _file(path, "named")
        else:
            yield from self._matching(path)

    def _matching(self, pattern: Path) -> Iterator[_Found]:
        found = list(self._deep(pattern) if "**" in pattern.parts else self._shallow(pattern))
        if not found and pattern.exists():
            raise InputError(f"`{pattern}` is neither a file nor a folder", hint=f"run `{shell('ls', '-ld', pattern)}`")
        if not found:
            raise InputError(f"`{pattern}` does not exist", hint=absent_hint(pattern))
        yield from found

    def _shallow(self, pattern: Path) -> Iterator[_Found]:
        for match in map(Path, glob.glob(str(pattern))):
            if match.is_dir():
                yield from self._below(match)
            elif match.is_file():
                yield _file(match, "glob")

    def _deep(self, pattern: Path) -> Iterator[_Found]:
        """Yield the matches of a pattern with `**`. The standard library's `glob` follows cycles of links."""
        start = next(i for i, part in enumerate(pattern.parts) if glob.has_magic(part))
        for real, is_linked, file in self._below(Path(*pattern.parts[:start])):
            if _matches(Path(file.below).parts, pattern.parts[start:]):
                yield real, is_linked, Listed(file.path, "glob", file.below)

    def _below(self, folder: Path) -> Iterator[_Found]:
        """Yield the files in and below `folder`. Each folder is entered once, through a link only if necessary."""
        seen: set[str] = set()
        plain, links = deque([(folder, False)]), deque[Path]()
        while plain or links:
            current, is_linked = plain.popleft() if plain else (links.popleft(), True)
            real = os.path.realpath(current)
            if real in seen:
                continue
            seen.add(real)
            for entry in self._entries(current):
                path, is_link = current / entry.name, entry.is_symlink()
                # For a link, use the path and not the entry: the entry raises an error for a cycle of links.
                if path.is_dir() if is_link else entry.is_dir():
                    if not is_link:
                        plain.append((path, is_linked))
                    elif not _leads_up(path):
                        links.append(path)
                elif path.is_file() if is_link else entry.is_file():
                    target = os.path.realpath(path) if is_link else str(Path(real, entry.name))
                    yield target, is_linked or is_link, Listed(path, "folder", path.relative_to(folder).as_posix())

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        shown = [entry for entry in found if not entry.name.startswith(".")]
        self.hidden += len(found) - len(shown)
        return shown


def _file(path: Path, found: Literal["named", "glob"]) -> _Found:
    return os.path.realpath(path), path.is_symlink(), Listed(path, found, path.name)


def _leads_up(link: Path) -> bool:
    """Whether `link` leads to a folder that contains it: following it would read everything around it."""
    target, place = Path(os.path.realpath(link)), Path(os.path.realpath(link.parent))
    return target == place or target in place.parents


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a glob, both in parts; `**` stands for any number of folders."""
    if not pattern or not parts:
        return not parts and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
