"""Which checkpoints stay: the last few. Metadata goes first, so that half a removal is no checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from alm.checkpoint.format import LAST_NAME, numbered, step_of
from alm.checkpoint.save import point_last_at
from alm.files import explained

_ASIDE = "set-aside"


def retain(run: Path, *, keep_last: int) -> None:
    """Remove all but the `keep_last` newest numbered checkpoints of `run`."""
    for path in numbered(run)[keep_last:]:
        remove(path)
    for path in run.glob("ckpt-step*.pt"):  # a kill between the two removals leaves one without metadata
        if step_of(path) is not None and not path.with_suffix(".json").is_file():
            path.unlink()


def remove(path: Path) -> None:
    """Remove one numbered checkpoint."""
    path.with_suffix(".json").unlink()
    path.unlink()


def set_aside_later(run: Path, *, step: int) -> Path | None:
    """Move the checkpoints of `run` after `step` into a folder of their own, which is returned.

    `ckpt-last.pt` then points at the newest of those that stay.
    """
    later = [path for path in numbered(run) if (step_of(path) or 0) > step]
    if not later:
        return None
    folder = free_folder(run)
    move(later, folder)
    staying = numbered(run)
    if staying:
        point_last_at(staying[0])
    else:
        (run / LAST_NAME).unlink(missing_ok=True)
    return folder


def free_folder(run: Path) -> Path:
    """A folder `set-aside-N` of `run` that does not exist yet."""
    number = 1
    while (run / f"{_ASIDE}-{number}").exists():
        number += 1
    return run / f"{_ASIDE}-{number}"


def move(checkpoints: Iterable[Path], folder: Path) -> None:
    """Move numbered checkpoints with their metadata to `folder`, newest first.

    Newest first: a kill on the way leaves the older ones, and the run resumes from them as asked.
    """
    with explained(folder):
        folder.mkdir(parents=True)
        for path in checkpoints:
            path.with_suffix(".json").replace(folder / path.with_suffix(".json").name)
            path.replace(folder / path.name)
