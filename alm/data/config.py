"""How batches are read."""

from __future__ import annotations

from pydantic import Field

from alm.config.base import Config


class DataConfig(Config):
    """The section `data:`."""

    prefetch: int = Field(default=2, ge=0, le=64, description="Steps whose batches are read ahead; 0 reads in line.")
