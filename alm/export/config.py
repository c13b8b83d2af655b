"""Options that every kind of export has."""

from __future__ import annotations

from pydantic import Field

from alm.config.base import Config


class TargetConfig(Config):
    """Texts for the model card and the files that the run does not know."""

    title: str | None = Field(
        None, description="Title of the model card; absent: the name of the folder, or of the hub's repository."
    )
    repo: str | None = Field(
        None, description="Repository on the hub that will hold the files, for the card's instructions to load them."
    )
    licence: str | None = Field(
        None, description="Licence of the weights, for the model card: apache-2.0, cc-by-sa-4.0; absent: not stated."
    )
