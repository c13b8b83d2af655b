"""The models that ship with `alm`, from small to large."""

from __future__ import annotations

from alm.config import presets
from alm.config.load import Part, load
from alm.model.config import ModelConfig
from alm.training.config import MODEL_SECTIONS, RunConfig

PRESETS = ("1m", "3m", "10m", "pico", "nano", "120m", "350m", "1b")


def ladder() -> dict[str, ModelConfig]:
    """Return the models that can be proposed, by the name of their preset, from small to large."""
    return {name: load(RunConfig, [Part(presets.find(name), MODEL_SECTIONS)]).model for name in PRESETS}
