"""What every test stands on: no network, no home, nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fakehub
import pytest

_HUB = fakehub.reserve()  # now: HF_ENDPOINT and HF_HOME are read when `huggingface_hub` is imported


def pytest_configure(config: pytest.Config) -> None:
    """Compiled kernels are kept from one run of the tests to the next, for the processes that tests start too."""
    os.environ["NUMBA_CACHE_DIR"] = str(config.cache.mkdir("kernels"))  # type: ignore[union-attr] # never switched off


@pytest.fixture
def hub() -> Iterator[fakehub.FakeHub]:
    """An empty hub on loopback."""
    with fakehub.serving(_HUB) as serving:
        yield serving


@pytest.fixture(autouse=True)
def _no_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    for name in ("FORCE_COLOR", "ALM_DEBUG", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent
