"""Kind `trackio`: Trackio, a tracker whose dashboard runs on one's own machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from alm.config.base import Config as BaseConfig
from alm.training.sinks._sink import Opening, off_stdout

PACKAGE, INSTALL = "trackio", "trackio"


class Config(BaseConfig):
    """Sends rows, no samples, to Trackio: `trackio show` draws them."""

    kind: Literal["trackio"] = "trackio"
    project: str = Field(default="alm", min_length=1, description="The project that the run belongs to.")


def opened(config: Config, opening: Opening) -> Trackio:
    """The sink. Runs are found by their name alone there, so it holds the run's id."""
    import trackio

    with off_stdout():
        run = trackio.init(
            project=config.project,
            name=f"{opening.name}-{opening.id}",
            config=opening.config,
            resume="allow",
        )
    return Trackio(run, where=f"`trackio show --project {config.project}`")


class Trackio:
    """A run of theirs. Steps that a killed run had sent and makes again are there twice."""

    def __init__(self, run: Any, *, where: str) -> None:  # Any: the package is optional
        self._run = run
        self.where = where

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def samples(self, step: int, texts: Sequence[tuple[str, str]]) -> None:
        """Trackio shows no long texts."""

    def close(self) -> None:
        with off_stdout():
            self._run.finish()
