"""How batches are read."""

from __future__ import annotations

from pydantic import Field

from alm.config.base import Config


class DataConfig(Config):
    """How batches are brought to the model."""

    prefetch: int = Field(default=2, ge=0, le=64, description="Steps whose batches are read ahead; 0 reads in line.")
