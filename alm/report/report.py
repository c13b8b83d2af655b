"""The stage `alm report`: run folders in, one page out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alm import page
from alm.errors import ArtifactError, ConfigError
from alm.files import read_bytes, write_text
from alm.report import record
from alm.report.html import GENERATOR, MOST_RUNS, html
from alm.report.record import Record

NAME = "report.html"


@dataclass(frozen=True)
class Reported:
    """The path of the page, and the runs on it with their names."""

    out: Path
    runs: tuple[tuple[str, Record], ...]


def report(runs: Sequence[Path], *, out: Path | None = None, force: bool = False) -> Reported:
    """Write the page of `runs` to `out`, by default into the folder of a single run.

    A page made by this stage is replaced; any other file only with `force`, otherwise `ArtifactError` is raised.
    """
    _check(runs)
    path = out or default_out(runs)
    _refuse_foreign(path, force=force)
    records = [record.read(folder) for folder in runs]
    names = record.names(records)
    write_text(path, html(records, names))
    return Reported(path, tuple(zip(names, records, strict=True)))


def default_out(runs: Sequence[Path]) -> Path:
    """The path in the run's folder, or in the current folder for several runs."""
    return runs[0] / NAME if len(runs) == 1 else Path(NAME)


def _check(runs: Sequence[Path]) -> None:
    if len(runs) > MOST_RUNS:
        raise ConfigError(f"{len(runs)} runs are too many for a page: it shows {MOST_RUNS} at most")
    places = [os.path.realpath(folder) for folder in runs]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise ConfigError(f"`{runs[number]}` is named twice", hint="name each run once")


def _refuse_foreign(path: Path, *, force: bool) -> None:
    if path.exists() and not force and not page.is_made_by(GENERATOR, read_bytes(path)):
        raise ArtifactError(
            f"`{path}` exists and was not made by `alm report`",
            hint="name another file with `--out`, or add `--force`",
        )
