"""Files that appear together: written to a staging folder, then published through a journal.

`publish` lists in `.journal.json` every file to move or remove. The rename that gives the journal its name is the
commit point. Before it nothing has changed. After it the change will be completed, by this process or by the next one
that reads or writes the folder (`ensure_published`), so every step can be repeated. The promise, the file that says
that the others are complete, is removed first and put in place last: it never describes files that are not there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from alm.errors import AlmError, ArtifactError, shell
from alm.files.lock import exclusive
from alm.files.parse import bounded_bytes, parse_json
from alm.files.write import hint_for, remove_stale, sync_file, sync_folder, wrap_os_errors, write_json

JOURNAL_NAME = ".journal.json"
LOCK_NAME = ".journal.lock"
_JOURNALS = f".{JOURNAL_NAME}.tmp-*"  # temporary files of journals being written
_MOST_BYTES = 64 << 20
_STAGE = re.compile(r"\.[^/]+\.staging")
_READER_SECONDS = 2.0
_PAUSE_SECONDS = 0.02
_PATIENCE_SECONDS = 30.0  # another process publishes to the same folder: that takes milliseconds


@dataclass(frozen=True)
class _Journal:
    """Steps of one change to a folder. All names are relative to it, with forward slashes.

    In this order: remove the old promise `last`, then `withdraws`; rename `moves` (pairs of source and target); put the
    new promise in place, then `follows`; remove `removes`.

    `there` has the size and time of every file that is removed or replaced. No other file is touched: a stranger who
    can plant a journal in a folder does not know the sizes and times of its files.
    """

    last: str | None
    last_source: str | None
    withdraws: list[str] = field(default_factory=list)
    moves: list[tuple[str, str]] = field(default_factory=list)
    follows: list[tuple[str, str]] = field(default_factory=list)
    removes: list[str] = field(default_factory=list)
    there: dict[str, list[int]] = field(default_factory=dict)
    stage: str = ""
    alm_journal: int = 1


@contextlib.contextmanager
def workspace(folder: Path, label: str, *, what: str) -> Iterator[Path]:
    """Lock `folder` and give a staging folder inside it: see `exclusive` and `staging`."""
    with exclusive(folder / f".{label}.lock", what=what):
        ensure_published(folder)
        with staging(folder, label) as stage:
            yield stage


@contextlib.contextmanager
def staging(folder: Path, label: str) -> Iterator[Path]:
    """Create a folder inside `folder` for files that are to appear together, and remove it afterwards. Hold a lock.

    Files that a killed process left under the same `label` are removed first.
    """
    stage = folder / f".{label}.staging"
    ensure_published(folder)  # the folder may hold files that a journal still has to move
    with wrap_os_errors(folder):
        remove_folder(stage)
        stage.mkdir(parents=True)
    try:
        yield stage
    finally:
        if not (folder / JOURNAL_NAME).exists():  # else it holds files that the journal has to move
            remove_folder(stage)


def clear(folder: Path, label: str) -> None:
    """Remove the leftovers of a killed process in `folder`: staged files and an unfinished journal. Hold its lock."""
    remove_folder(folder / f".{label}.staging")
    if (folder / LOCK_NAME).exists() or any(folder.glob(_JOURNALS)):
        with exclusive(folder / LOCK_NAME, what=f"`{folder}`", patience_seconds=_PATIENCE_SECONDS):
            remove_stale(folder, _JOURNALS)


def remove_folder(folder: Path) -> None:
    """Remove `folder` and its contents, as far as the disk allows: the next start removes the rest."""
    if folder.is_symlink():
        folder.unlink()
    for _ in range(2):  # an error may be transient
        shutil.rmtree(folder, ignore_errors=True)


def publish(
    stage: Path,
    folder: Path,
    *,
    last: str | None,
    replaces: Iterable[str] = (),
    moves: Mapping[str, str] | None = None,
    vouching: Sequence[str] = (),
    follows: Iterable[str] = (),
    outdated: Iterable[str] = (),
) -> None:
    """Move every file of `stage`, a folder inside `folder`, into `folder`, the promise `last` after all others.

    - `moves` renames files that are already in `folder`, from name to name.
    - `vouching` names staged files that vouch for other files, as the promise does for all. Old ones are removed before
      those files change; new ones are put in place after them, in this order.
    - `follows` names staged files that are put in place after the promise, which vouches for them.
    - `replaces` names files to remove before the new ones are in place, `outdated` files to remove after that. A file
      that is written again is not removed.

    Raises `AlmError` when the disk fails. Before the commit point nothing has changed; after it the error says so, and
    `ensure_published` completes the change.
    """
    prefix, after = stage.relative_to(folder).as_posix(), set(follows)
    replaces, outdated = set(replaces), set(outdated)
    names = (path.relative_to(stage).as_posix() for path in stage.rglob("*") if not path.is_dir())
    staged = sorted(names, key=lambda name: (name.endswith(".json"), name))  # metadata after the files it describes
    assert last is None or last in staged, last
    assert set(vouching) <= set(staged) - after - {last}, vouching
    early = [name for name in staged if name != last and name not in after and name not in vouching]
    pairs = [(f"{prefix}/{name}", name) for name in (*early, *vouching)]
    pairs += (moves or {}).items()
    written = {*staged, *(moves or {}).values()}
    journal = _Journal(
        last=last,
        last_source=None if last is None else f"{prefix}/{last}",
        withdraws=[*reversed(vouching), *sorted(replaces - written)],
        moves=pairs,
        follows=[(f"{prefix}/{name}", name) for name in staged if name in after],
        removes=sorted(outdated - written),
        there={name: known for name in {*written, *replaces, *outdated} if (known := _state(folder / name))},
        stage=prefix,
    )
    for name in _names(journal):
        inside(folder, name)
    for name in (*written, *replaces, *outdated):  # a change that would fail must not reach the commit point
        with wrap_os_errors(folder / name):
            if (folder / name).is_dir() and not (folder / name).is_symlink():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    # Contents before the journal: a power cut after the commit point must not leave renamed files without their data.
    with wrap_os_errors(folder):
        for name in staged:
            sync_file(stage / name)
        for path in {stage, *((stage / name).parent for name in staged)}:
            sync_folder(path)
    with exclusive(folder / LOCK_NAME, what=f"`{folder}`", patience_seconds=_PATIENCE_SECONDS):
        _complete(folder)
        write_json(folder / JOURNAL_NAME, asdict(journal))
        _complete(folder)


def _state(path: Path) -> list[int] | None:
    """Return the size of `path` and the time of its last change; None if it does not exist."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _names(journal: _Journal) -> list[str]:
    names = [*journal.withdraws, *journal.removes, journal.stage]
    names += [name for pair in [*journal.moves, *journal.follows] for name in pair]
    return names + [name for name in (journal.last, journal.last_source) if name is not None]


def ensure_published(folder: Path) -> None:
    """Complete a change to `folder` that a killed process began; there is rarely anything to do.

    A process that may not write there waits for a moment, because another one may be publishing right now.
    """
    journal = folder / JOURNAL_NAME
    if not _is_there(journal):
        return
    if os.access(folder, os.W_OK):
        with exclusive(folder / LOCK_NAME, what=f"`{folder}`", patience_seconds=_PATIENCE_SECONDS):
            _complete(folder)
        return
    end = time.monotonic() + _READER_SECONDS
    while _is_there(journal):
        if time.monotonic() >= end:
            raise ArtifactError(
                f"`{folder}` is being published and is not complete yet",
                hint=f"ask its owner to run `{shell('alm', 'info', folder)}`, which completes it",
            )
        time.sleep(_PAUSE_SECONDS)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no permission, or a name that is too long: the caller that opens the file reports it
        return False


def sweep(folder: Path, label: str, *, also: Iterable[Path] = ()) -> None:
    """Remove the leftovers of a killed process in `folder`: staged and temporary files, locks, and the folders `also`.

    Does nothing if another process works in the folder, or if it is not writable.
    """
    lock = folder / f".{label}.lock"
    left = [folder / f".{label}.staging", *also]
    if any(path.exists() for path in (lock, folder / LOCK_NAME, *left)) or any(folder.glob(_JOURNALS)):
        with contextlib.suppress(AlmError), exclusive(lock, what=f"`{folder}`"):
            ensure_published(folder)
            clear(folder, label)
            for path in left:
                remove_folder(path)


def _complete(folder: Path) -> None:
    """Take every remaining step of the journal in `folder`."""
    path = folder / JOURNAL_NAME
    if not path.is_file():
        return
    journal = _read(path)
    try:
        _take(folder, journal)
        path.unlink()
        sync_folder(folder)
    except OSError as error:
        raise AlmError(
            f"`{folder}` is not complete yet: cannot write `{error.filename or path}`: {error.strerror or error}",
            hint=f"{_cure(error, folder)}; then run `{shell('alm', 'info', folder)}`, which completes it",
        ) from error
    remove_folder(inside(folder, journal.stage))


def _cure(error: OSError, folder: Path) -> str:
    hint = hint_for(error, folder / JOURNAL_NAME)
    return hint.partition(";")[0] if "what was there before" not in hint.partition(";")[0] else "check the disk"


def _take(folder: Path, journal: _Journal) -> None:
    last_source = None if journal.last_source is None else inside(folder, journal.last_source)
    last = None if journal.last is None else inside(folder, journal.last)
    is_promised = last_source is not None and not last_source.exists()  # then `last` is already the new one
    _check(folder, journal)
    if last is not None and is_promised and _state(last) in (None, journal.there.get(journal.last or "")):
        raise _lost(folder, last)  # the new promise was lost before it was put in place
    if journal.last is not None and not is_promised:
        _remove(folder, journal, journal.last)
        sync_folder(folder)  # on disk before any file changes, or a power cut could bring the old promise back
    arrived = {target for source, target in journal.moves if not inside(folder, source).exists()}
    for name in journal.withdraws:
        if name not in arrived:  # else it is the new one already
            _remove(folder, journal, name)
    if journal.withdraws:
        sync_folder(folder)
    _move(folder, journal.moves)
    if last is not None and last_source is not None and not is_promised:
        last_source.replace(last)
        sync_folder(folder)
    _move(folder, journal.follows)
    for name in journal.removes:
        _remove(folder, journal, name)


def _check(folder: Path, journal: _Journal) -> None:
    """Raise, before anything is removed, if a new file is missing or would replace a file that is not in `there`."""
    for source_name, target_name in [*journal.moves, *journal.follows]:
        source, target = inside(folder, source_name), inside(folder, target_name)
        now = _state(target)
        if source.exists():
            if now not in (None, journal.there.get(target_name)):
                raise _lost(folder, target)
        elif now is None:  # neither staged nor, from before a kill, in place
            raise _lost(folder, source)


def _remove(folder: Path, journal: _Journal, name: str) -> None:
    path = inside(folder, name)
    if _state(path) == journal.there.get(name):  # else it is already gone, or another file now
        path.unlink(missing_ok=True)


def _move(folder: Path, pairs: Iterable[tuple[str, str]]) -> None:
    touched = set()
    for source_name, target_name in pairs:
        source, target = inside(folder, source_name), inside(folder, target_name)
        if source.exists():  # else it was already moved, before a kill
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
        touched |= {source.parent, target.parent}
    for parent in touched:
        if parent.is_dir():
            sync_folder(parent)


def _lost(folder: Path, path: Path) -> ArtifactError:
    """Build the error for a change that cannot be completed because files were changed by someone else."""
    journal = folder / JOURNAL_NAME
    return ArtifactError(
        f"`{folder}` cannot be completed: `{path}` has changed since the change to this folder began",
        hint=f"run `{shell('mv', '-n', journal, folder / 'journal.aside')}`, then the command that made `{folder}`",
    )


def _read(path: Path) -> _Journal:
    """Read the journal in `path`. It may be a stranger's: `inside` refuses names that leave the folder."""
    try:
        values = parse_json(bounded_bytes(path, most=_MOST_BYTES), allow_surrogates=True)
        journal = _Journal(**values)
        is_ours = journal.alm_journal == 1 and all(isinstance(name, str) for name in _names(journal))
        is_ours = is_ours and isinstance(journal.there, dict) and _STAGE.fullmatch(journal.stage) is not None
        if (
            not is_ours
            or any(len(pair) != 2 for pair in [*journal.moves, *journal.follows])
            or (journal.last is None) != (journal.last_source is None)
        ):
            raise ValueError("it has other fields")
    except (ValueError, TypeError) as error:
        raise ArtifactError(
            f"`{path}` is not a journal of alm: {error}",
            hint=f"run `{shell('mv', path, path.with_name('journal.damaged'))}`, then the command that makes "
            f"`{path.parent}` with `--force`",
        ) from error
    return journal


def inside(folder: Path, name: str) -> Path:
    """Return the file `name` of `folder`; `ArtifactError` for a name that could lead out of it.

    A list of files in an artifact may come from a stranger, so it may only name files inside the artifact.
    """
    pure = PurePosixPath(name)
    is_plain = (
        bool(pure.parts)
        and "\0" not in name
        and "\\" not in name
        and not pure.is_absolute()
        and not PureWindowsPath(name).drive
        and ".." not in pure.parts
    )
    if not is_plain:
        raise ArtifactError(f"`{folder}` names the file `{name}`, which lies outside it", hint=_UNTRUSTED)
    path = folder
    for part in pure.parts[:-1]:
        path /= part
        if path.is_symlink():
            raise ArtifactError(f"`{folder}` names the file `{name}`, but `{path}` is a link", hint=_UNTRUSTED)
    return folder / name


_UNTRUSTED = "an artifact only names its own files: get it again from its source, or make it again"
