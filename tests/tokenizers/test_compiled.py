"""When compiled code is used, where it is kept, and that nothing depends on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alm import compiling
from alm.events import Event, Noted
from alm.tokenizers import compiled

PROBE = """
import json, sys
from alm.tokenizers import compiled
from alm.tokenizers.file import Tokenizer
used = [compiled.pays_off(size) for size in {sizes}]
Tokenizer.from_merges([(104, 97)]).encode_batch(["the cat", "é"])
print(json.dumps(dict(used=used, numba="numba" in sys.modules)))
"""
# Of all kernels the one that compiles fastest.
KERNEL = """
import json
from pathlib import Path
import numpy as np
from alm.tokenizers import compiled
events = []
used = compiled.pays_off(1, events.append)
from alm.tokenizers._kernels.bpe_encode import fill_ranks
ranks = np.zeros(8, dtype=np.int64)
fill_ranks(np.array([[104, 97, 300]]), ranks)
kept = compiled.folder()
print(json.dumps(dict(used=used, said=[event.message for event in events], ranks=ranks.tolist(),
    folder=kept and str(kept), hits=sum(fill_ranks.stats.cache_hits.values()))))
"""


def probe(code: str, **environment: str) -> dict[str, object]:
    names = {"ALM_KERNELS": "", "NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": "", "LOCALAPPDATA": ""} | environment
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **names},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not loaded kernels."""
    monkeypatch.setitem(compiled._state, "loaded", False)
    monkeypatch.delenv("ALM_KERNELS", raising=False)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("is_warm", [True, False])
def test_more_is_asked_of_kernels_that_must_be_compiled_first(is_warm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_is_warm", lambda: is_warm)
    said: list[Event] = []
    assert not compiled.pays_off(100_000, said.append)
    assert compiled.pays_off(10_000_000, said.append) == is_warm
    assert compiled.pays_off(100_000_000, said.append)
    assert compiled.pays_off(100_000, said.append)  # once they are loaded
    assert said == ([] if is_warm else [Noted("compiling the tokenizer's kernels: a few seconds, once per machine")])


@pytest.mark.usefixtures("fresh")
def test_without_numba_everything_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "is_installed", lambda: False)
    assert not compiled.pays_off(10**12)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("value", "answer"), [("always", True), ("never", False)])
def test_the_environment_decides(value: str, answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALM_KERNELS", value)
    assert compiled.pays_off(1) is answer
    assert compiled.pays_off(10**12) is answer


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("use_kernels", [True, False])
def test_a_caller_decides_before_the_environment_and_only_in_its_context(
    use_kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALM_KERNELS", "never" if use_kernels else "always")
    with compiled.decided(use_kernels=use_kernels):
        assert compiled.pays_off(1) is use_kernels
        assert compiled.pays_off(10**12) is use_kernels
    assert compiled.pays_off(1) is not use_kernels


def test_small_texts_load_no_kernels() -> None:
    found = probe(PROBE.format(sizes=[10, 1000]))
    assert found["used"] == [False, False]
    assert found["numba"] is False


@pytest.mark.slow
def test_a_machine_compiles_once_and_one_without_a_cache_in_memory(tmp_path: Path) -> None:
    kept, occupied = tmp_path / "kept", tmp_path / "a file, no folder"
    occupied.touch()
    first, second, without = (
        probe(KERNEL, ALM_KERNELS="always", NUMBA_CACHE_DIR=str(folder)) for folder in (kept, kept, occupied)
    )
    assert str(first["folder"]).startswith(str(kept))
    assert (first["hits"], second["hits"]) == (0, 1)
    assert (len(first["said"]), second["said"]) == (1, [])  # type: ignore[arg-type]
    assert (without["folder"], without["used"]) == (None, True)
    assert first["ranks"] == second["ranks"] == without["ranks"]
    assert 300 in first["ranks"]  # type: ignore[operator]


def test_the_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    for platform, name, below in (
        ("linux", "XDG_CACHE_HOME", "alm/kernels"),
        ("win32", "LOCALAPPDATA", "alm/kernels"),
        ("darwin", "HOME", "Library/Caches/alm/kernels"),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setenv(name, str(tmp_path / platform))
        found = compiled.folder.__wrapped__()
        assert found is not None
        assert found.parent == tmp_path / platform / below
