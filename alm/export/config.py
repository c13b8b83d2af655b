"""What every kind of export can be told."""

from __future__ import annotations

from pydantic import Field

from alm.config.base import Config


class TargetConfig(Config):
    """What the model card and the files say beside what is known of the run."""

    title: str | None = Field(
        None, description="What the model card calls the model; absent: the name of the folder, or on the hub its own."
    )
    repo: str | None = Field(
        None, description="Where on the hub the files will be, for what the card says of loading them."
    )
    licence: str | None = Field(
        None, description="Licence of the weights, for the model card: apache-2.0, cc-by-sa-4.0; absent: not stated."
    )
