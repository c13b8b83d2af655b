"""Which checkpoints stay: the last few, every so many steps, the best.

Metadata goes first, so that half a removal is no checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from alm.artifacts import CheckpointMetadata
from alm.checkpoint.format import BEST_NAME, LAST_NAME, numbered, step_of
from alm.checkpoint.load import promise
from alm.checkpoint.save import point_at
from alm.errors import ArtifactError
from alm.files import explained

_ASIDE = "set-aside"


@dataclass(frozen=True)
class Retention:
    """The newest `last`, those whose step is a multiple of `every`, and with `best` the one that scored best."""

    last: int
    every: int | None = None
    best: bool = False

    def is_permanent(self, path: Path) -> bool:
        """Whether the step in the name of `path` is one whose checkpoint is never removed."""
        step = step_of(path)
        return self.every is not None and step is not None and step % self.every == 0


def retain(run: Path, retention: Retention) -> None:
    """Remove every numbered checkpoint of `run` that `retention` does not keep.

    One that is visibly not whole does not count as one of the last, so that what it should have replaced stays.
    """
    whole = {path: found for path in numbered(run) if (found := _looks_whole(path))}
    kept = set(list(whole)[: retention.last])
    if not kept:
        return
    kept |= {path for path in whole if retention.is_permanent(path)}
    best = _best(whole)
    if retention.best and best is not None:
        kept.add(best)
        point_at(best, BEST_NAME)
    for path in numbered(run):
        if path not in kept:
            remove(path)
    for path in run.glob("ckpt-step*.pt"):  # a kill between the two removals leaves one without metadata
        if step_of(path) is not None and not path.with_suffix(".json").is_file():
            path.unlink()


def _looks_whole(path: Path) -> CheckpointMetadata | None:
    """What is promised of `path`, if it has the promised size; hashing every file at every save would be too slow."""
    try:
        found = promise(path.with_suffix(".json"))
    except ArtifactError:
        return None
    return found if path.is_file() and path.stat().st_size == found.bytes else None


def _best(whole: dict[Path, CheckpointMetadata]) -> Path | None:
    """The one with the lowest bits per byte; the oldest of equals."""
    scores = {path: found.bits_per_byte for path, found in whole.items() if found.bits_per_byte is not None}
    return min(reversed(scores), key=lambda path: scores[path]) if scores else None


def remove(path: Path) -> None:
    """Remove one numbered checkpoint."""
    path.with_suffix(".json").unlink()
    path.unlink()


def set_aside_later(run: Path, *, step: int) -> Path | None:
    """Move the checkpoints of `run` after `step` into a folder of their own, which is returned.

    `ckpt-last.pt` and `ckpt-best.pt` then point at those that stay.
    """
    later = [path for path in numbered(run) if (step_of(path) or 0) > step]
    if not later:
        return None
    folder = free_folder(run)
    move(later, folder)
    staying = numbered(run)
    _point(run, LAST_NAME, staying[0] if staying else None)
    if (run / BEST_NAME).is_file():
        _point(run, BEST_NAME, _best({path: found for path in staying if (found := _looks_whole(path))}))
    return folder


def _point(run: Path, link: str, path: Path | None) -> None:
    if path is None:
        (run / link).unlink(missing_ok=True)
    else:
        point_at(path, link)


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
