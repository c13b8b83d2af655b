"""Decides which checkpoints are kept and which ones `ckpt-last.pt` and `ckpt-best.pt` link to.

Both are a function of the metadata in the folder, so that a kill at any instant can be repaired from the folder alone.
Saving, reconciling and setting aside all end in one `files.publish`: links, removals and rows change together.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alm import files
from alm.artifacts import CheckpointMetadata
from alm.checkpoint import STAGING
from alm.checkpoint.format import BEST_NAME, LAST_NAME, LINK_NAMES, age, numbered, step_of
from alm.checkpoint.load import read_metadata
from alm.errors import ArtifactError

_ASIDE = "set-aside"
_COPY_BYTES = 1 << 20

Known = dict[Path, CheckpointMetadata]


@dataclass(frozen=True)
class Retention:
    """Rule to keep the newest `last`, those whose step is a multiple of `every`, and with `best` the one that scored
    best.
    """

    last: int
    every: int | None = None
    best: bool = False

    def is_permanent(self, path: Path) -> bool:
        """Whether the step in the name of `path` is one whose checkpoint is never removed."""
        step = step_of(path)
        return self.every is not None and step is not None and step % self.every == 0

    def kept(self, known: Known) -> set[Path]:
        """Return those of `known` that are kept."""
        newest_first = sorted(known, key=age, reverse=True)
        kept = {*newest_first[: self.last], *(path for path in known if self.is_permanent(path))}
        found = best_of(known) if self.best else None
        return kept if found is None else kept | {found}


def complete_in(run: Path) -> Known:
    """Return the numbered checkpoints of `run` with the recorded size: hashing all at every save would be too slow."""
    return {path: found for path in numbered(run) if (found := _metadata_if_complete(path))}


def _metadata_if_complete(path: Path) -> CheckpointMetadata | None:
    try:
        found = read_metadata(path.with_suffix(".json"))
    except ArtifactError:
        return None
    return found if path.is_file() and path.stat().st_size == found.bytes else None


def best_of(known: Known) -> Path | None:
    """Return the one with the lowest bits per byte, the oldest of equals."""
    scores = {path: known[path].bits_per_byte for path in sorted(known, key=age)}
    scored = {path: score for path, score in scores.items() if score is not None}
    return min(scored, key=lambda path: scored[path]) if scored else None


def surplus(run: Path, known: Known, retention: Retention) -> list[str]:
    """Return the files of `run` to remove when `retention` is applied to `known`.

    A visibly damaged checkpoint does not count as one of the last, so that the one it should have replaced stays; it is
    removed as soon as there is a complete one.
    """
    kept = retention.kept(known)
    gone = [path for path in numbered(run) if path not in kept] if kept else []
    # Who takes the best checkpoint of a run must not find one that has not been replaced since.
    names = [BEST_NAME] if not retention.best and any(_is(run / BEST_NAME, path) for path in numbered(run)) else []
    return [*names, *(name for path in gone for name in (path.name, path.with_suffix(".json").name))]


def repair(run: Path, retention: Retention) -> bool:
    """Make links and checkpoints of `run` match `retention`; return whether anything changed.

    The caller holds the lock of the run.
    """
    files.ensure_published(run)
    known = complete_in(run)
    if not known:
        return False
    wanted = links(known, retention)
    wrong = {link: path for link, path in wanted.items() if not _is(run / link, path)}
    removes = surplus(run, known, retention)
    if not (wrong or removes):
        return False
    with files.staging(run, STAGING) as stage:
        for link, path in wrong.items():
            link_or_copy(path, stage / link)
        files.publish(stage, run, last=None, outdated=removes)
    return True


def links(known: Known, retention: Retention) -> dict[str, Path]:
    """Return the targets of `ckpt-last.pt` and, with `retention.best`, of `ckpt-best.pt`."""
    wanted = {LAST_NAME: max(known, key=age)} if known else {}
    found = best_of(known) if retention.best else None
    return wanted if found is None else wanted | {BEST_NAME: found}


def _is(link: Path, path: Path) -> bool:
    """Whether `link` is another name for `path`, or a copy of it."""
    if not (link.is_file() and path.is_file()):
        return False
    if link.samefile(path):
        return True
    return link.stat().st_size == path.stat().st_size and files.sha256(link) == files.sha256(path)


def link_or_copy(path: Path, link: Path) -> None:
    """Make `link`, which does not exist, a hard link to `path`, or a copy if the file system has no links."""
    with files.wrap_os_errors(link):
        try:
            os.link(path, link)
        except OSError as error:
            if files.is_full(error):
                raise
            with path.open("rb") as source, link.open("wb") as target:
                shutil.copyfileobj(source, target, _COPY_BYTES)


def rewind(run: Path, *, step: int, rows: Mapping[str, tuple[bytes, bytes]]) -> Path | None:
    """Take `run` back to `step`: move later checkpoints into a new folder. Return it, None if there are none.

    `rows` has, by the name of each file of rows that changes, the rows that stay and those that go: into that folder
    too, or for good if there is no later checkpoint, since training makes the same rows again. `ckpt-last.pt` and
    `ckpt-best.pt` then link to checkpoints that stay. All of it is atomic: a kill loses nothing.
    """
    known = complete_in(run)
    later = [path for path in numbered(run) if (step_of(path) or 0) > step]
    if not later and not rows:
        return None
    folder = free_folder(run)
    staying = {path: found for path, found in known.items() if path not in later}
    with files.staging(run, STAGING) as stage:
        wanted = links(staying, Retention(last=1, best=(run / BEST_NAME).is_file()))
        for link, path in wanted.items() if later else ():
            link_or_copy(path, stage / link)
        for path in later:  # under two names for a moment: metadata must never be without its file
            if path.is_file():
                with files.wrap_os_errors(folder):
                    (stage / folder.name).mkdir(exist_ok=True)
                link_or_copy(path, stage / folder.name / path.name)
        for name, (kept, gone) in rows.items():
            files.write_bytes(stage / name, kept)
            if later and gone:
                files.write_bytes(stage / folder.name / name, gone)
        files.publish(
            stage,
            run,
            last=None,
            replaces=[link for link in LINK_NAMES if link not in wanted] if later else [],
            moves={name: f"{folder.name}/{name}" for name in (path.with_suffix(".json").name for path in later)},
            outdated=[path.name for path in later],
        )
    return folder if later else None


def free_folder(run: Path) -> Path:
    """Return a folder `set-aside-N` of `run` that does not exist yet."""
    number = 1
    while (run / f"{_ASIDE}-{number}").exists():
        number += 1
    return run / f"{_ASIDE}-{number}"
