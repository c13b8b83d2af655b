"""Kind `wandb`: Weights & Biases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from alm.config.base import Config as BaseConfig
from alm.training.monitoring.sinks._sink import LoggedRun, Opening

PACKAGE, INSTALL = "wandb", "wandb"


class Config(BaseConfig):
    """Sends rows and samples to Weights & Biases; `wandb login` first, or `WANDB_MODE=offline`."""

    kind: Literal["wandb"] = "wandb"
    project: str = Field(default="alm", min_length=1, description="The project that the run belongs to.")
    entity: str | None = Field(default=None, description="The user or team; absent uses your default.")


def opened(config: Config, opening: Opening) -> WeightsAndBiases:
    """Open the sink. A resumed run stays the same one there; for a step that was sent before, the first values stay."""
    import wandb

    run = wandb.init(
        project=config.project,
        entity=config.entity,
        id=opening.id,
        name=opening.name,
        dir=str(opening.run),
        config=opening.config,
        allow_val_change=True,
        resume="allow",
        settings=wandb.Settings(console="off", silent=True),
    )
    return WeightsAndBiases(run, wandb.Table)


class WeightsAndBiases(LoggedRun):
    """A run at Weights & Biases."""

    def __init__(self, run: Any, table: Any) -> None:  # Any: the package is optional
        super().__init__(run, where=f"`wandb sync {Path(run.dir).parent}`" if run.offline else run.url)
        self._table = table

    def samples(self, step: int, texts: Sequence[tuple[str, str]]) -> None:
        table = self._table(columns=["prompt", "text"], data=[list(pair) for pair in texts])
        self._run.log({"samples": table}, step=step)
