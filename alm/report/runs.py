"""The runs in some folders, each as far as its files can be read, and the newest of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alm.artifacts import PackMetadata
from alm.checkpoint.format import LAST_NAME
from alm.errors import AlmError, ArtifactError, InputError, absent_hint
from alm.packing.shards import METADATA_NAME as PACK_METADATA_NAME
from alm.report import record
from alm.report.history import SCORE
from alm.report.record import Record
from alm.training.monitoring import metrics
from alm.training.run import run_folder

RUNS = Path("runs")
_QUICKSTARTS = "alm-*/runs"


@dataclass(frozen=True)
class Listed:
    """A run as a list shows it; what its files do not say is None. `bits_per_byte` is the best score."""

    run: Path
    state: str  # finished, interrupted, running or damaged
    parameters: int | None = None
    model: str | None = None  # layers and width
    text: tuple[str, ...] = ()  # names of the sources
    step: int | None = None
    max_steps: int | None = None
    bits_per_byte: float | None = None
    age_seconds: float = 0.0  # since its files changed


def listed(folder: Path | None = None) -> list[Listed]:
    """List the runs in `folder`, or in the usual places, newest first. Raises `InputError` if there is no `folder`."""
    if folder is not None and not folder.is_dir():
        raise InputError(f"`{folder}` is not a folder", hint=absent_hint(folder))
    return [_listed(run) for run in _newest_first(_places() if folder is None else [folder])]


def newest_run() -> Path:
    """Return the run in the usual places whose files changed last; `ArtifactError` if there is none."""
    for run in _newest_first(_places()):
        return run
    raise ArtifactError(f"there is no run in `{RUNS}`", hint="run `alm quickstart` or `alm pretrain`, or name a run")


def newest_checkpoint() -> Path:
    """Return the newest `ckpt-last.pt` in the usual places, of a run or an import; `ArtifactError` if there is none."""
    found = [path for place in _places() for path in place.glob(f"*/{LAST_NAME}") if path.is_file()]
    if not found:
        raise ArtifactError(
            f"there is no checkpoint in `{RUNS}`",
            hint="run `alm quickstart` or `alm pretrain`, or name a checkpoint with `--checkpoint`",
        )
    return max(found, key=lambda path: path.stat().st_mtime)


def _places() -> list[Path]:
    return [RUNS, *sorted(Path().glob(_QUICKSTARTS))]


def _newest_first(places: Sequence[Path]) -> list[Path]:
    """The runs in `places`; a place may be a run itself, or the folder of a quickstart."""
    return sorted({run for place in places for run in _runs_in(place)}, key=_changed, reverse=True)


def _runs_in(place: Path) -> Iterator[Path]:
    candidates = [place, *sorted(place.glob("*")), *sorted(place.glob(f"{RUNS}/*"))]
    return (folder for folder in candidates if os.path.lexists(folder / run_folder.METADATA_NAME))


def _changed(run: Path) -> float:
    """When the files of the run changed last, in seconds since the epoch."""
    times = [0.0]
    for name in (metrics.NAME, run_folder.METADATA_NAME):
        try:
            times.append((run / name).stat().st_mtime)
        except OSError:
            continue
    return max(times)


def _listed(run: Path) -> Listed:
    age = max(time.time() - _changed(run), 0.0)
    try:
        found = record.read(run)
    except (AlmError, OSError):
        return Listed(run, "damaged", age_seconds=age)
    scores = found.series(SCORE).known()
    return Listed(
        run,
        _state(found),
        parameters=found.metadata.parameters,
        model=_shape(found),
        text=_sources(found),
        step=found.step,
        max_steps=found.max_steps,
        bits_per_byte=float(scores.values.min()) if scores else None,
        age_seconds=age,
    )


def _state(found: Record) -> str:
    if found.trainer() is not None:
        return "running"
    return "finished" if found.is_finished else "interrupted"


def _shape(found: Record) -> str | None:
    model = found.config.get("model")
    sizes = [model.get(key) for key in ("n_layers", "d_model")] if isinstance(model, dict) else []
    return " x ".join(map(str, sizes)) if sizes and all(isinstance(size, int) for size in sizes) else None


def _sources(found: Record) -> tuple[str, ...]:
    """The names of the sources of the packed data; none if it is gone."""
    from alm import artifacts

    path = Path(os.path.normpath(found.folder / found.metadata.data)) / PACK_METADATA_NAME
    try:
        return tuple(artifacts.read(path, PackMetadata, hint="").sources)
    except (AlmError, OSError):
        return ()
