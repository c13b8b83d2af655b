"""What tests of training share, and none of them changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import run_config, write_packed

from alm.training.pretrain import pretrain


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed data with a vocabulary of 300 and sequences of 16 tokens."""
    return write_packed(tmp_path_factory.mktemp("data"))[0]


@pytest.fixture(scope="session")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `run_config()`, which nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    pretrain(run_config(), data=data, out=out)
    return out
