"""One run of `alm pretrain` with its resolved settings, as passed to the parts of training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alm.checkpoint.format import LAST_NAME
from alm.checkpoint.retain import Retention
from alm.device import Choice, available_bytes
from alm.distributed import World
from alm.errors import shell
from alm.events import Listener
from alm.files import sha256
from alm.packing.shards import METADATA_NAME as PACK_METADATA_NAME
from alm.packing.shards import PackedData
from alm.training.config import RunConfig
from alm.training.run.asked import Asked
from alm.training.run.fit import Fitting
from alm.training.run.initial import InitialWeights


@dataclass(frozen=True)
class Job:
    """A run on this rank: configuration, data, folder, device, environment, and the settings that were `asked` for."""

    config: RunConfig
    packed: PackedData
    out: Path
    choice: Choice
    environment: dict[str, str]
    world: World
    asked: Asked
    on_event: Listener
    initial: InitialWeights | None = None  # None: random ones

    @property
    def data_sha256(self) -> str:
        """Hash of the data, as in the run's checkpoints."""
        return sha256(self.packed.folder / PACK_METADATA_NAME)

    @property
    def resume_command(self) -> str:
        """Command to paste after a stop."""
        return shell("alm", "pretrain", "--resume", self.out / LAST_NAME)

    @property
    def retention(self) -> Retention:
        """Rule for the checkpoints to keep."""
        training = self.config.training
        return Retention(training.keep_last, training.keep_every, training.keep_best)

    def fitting(self) -> Fitting:
        """Return a `Fitting` for the memory that is free now."""
        return Fitting(self.packed, self.choice, self.world, available_bytes(self.choice.device), self.on_event)
