"""The README.md of an export: what the model is, what it was made from, and how it was compared."""

from __future__ import annotations

from collections.abc import Sequence

from alm import __version__, kinds
from alm.artifacts import Comparison
from alm.export.config import TargetConfig
from alm.export.source import Source

NAME = "README.md"


def text(config: TargetConfig, source: Source, comparisons: Sequence[Comparison] | None, *, name: str) -> str:
    """The whole page, in Markdown."""
    usage: str = kinds.module_of(config).usage(config, source, name)
    return "\n\n".join([f"# {name}", f"{source.parameters:,} parameters, alm {__version__}.", usage]) + "\n"
