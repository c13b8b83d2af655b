"""Chooses the checkpoint of a run that is used where a run is named: its best one if it keeps that, else its last."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alm.artifacts import CheckpointMetadata
from alm.checkpoint.format import BEST_NAME, LAST_NAME, QUANTIZED_NAME, age
from alm.checkpoint.retain import best_of, complete_in
from alm.errors import ArtifactError, quoted
from alm.events import Listener, Noted, ignore


@dataclass(frozen=True)
class Choice:
    """The checkpoint to use of a run, its metadata, and that of the last one: the same if the last is the best."""

    path: Path
    used: CheckpointMetadata
    last: CheckpointMetadata

    @property
    def is_last(self) -> bool:
        """Whether the last checkpoint is used."""
        return self.used.step == self.last.step

    def describe(self) -> str:
        """Say which checkpoint is used, and what the last one is; for one that is not the last."""
        score = self.last.bits_per_byte
        last = f"the last, step {self.last.step:,}, " + ("has no score" if score is None else f"has {score:.3f}")
        return f"best of the run: step {self.used.step:,}, {self.used.bits_per_byte:.3f} bits/byte; {last}"


def choose(run: Path) -> Choice | None:
    """Return the checkpoint to use of the run in the folder `run`, from metadata alone; None if it has none."""
    known = complete_in(run)
    if not known:
        return None
    newest = max(known, key=age)
    best = best_of(known) if (run / BEST_NAME).is_file() else None
    if best is not None and known[best].step != known[newest].step:
        return Choice(run / BEST_NAME, known[best], known[newest])
    link = run / LAST_NAME
    return Choice(link if link.is_file() else newest, known[newest], known[newest])


def checkpoint_at(path: Path, *, on_event: Listener = ignore) -> Path:
    """Return `path`, or the checkpoint to use of the run in the folder `path`: an event says if it is not the last.

    Raises `ArtifactError` if a folder has no checkpoint.
    """
    if not path.is_dir():
        return path
    found = choose(path)
    if found is None:
        for name in (LAST_NAME, QUANTIZED_NAME):  # the first is a copy without metadata
            if (path / name).is_file():
                return path / name
        raise ArtifactError(f"`{path}` is a folder without a checkpoint", hint=_hint(path))
    if not found.is_last:
        on_event(Noted(found.describe()))
    return found.path


def _hint(folder: Path) -> str:
    runs = [file.parent for pattern in ("*", "runs/*") for file in sorted(folder.glob(f"{pattern}/{LAST_NAME}"))]
    return f"name a run in it: `{quoted(runs[0])}`" if runs else "run `alm pretrain` to make one"
