"""Which processes another has started, and that they are gone when they are killed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alm.doctor import faults
from alm.doctor.faults import children, killed, stopped
from alm.files import is_running

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="not asked there")

# Two processes that wait until their input ends, and their ids. A name with a space and a bracket is one of the traps.
PARENT = """
import subprocess, sys
found = [subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"]) for _ in range(2)]
print(*[child.pid for child in found], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent() -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        ids = [int(word) for word in process.stdout.readline().split()]
        yield process, ids
        process.kill()
        for left in ids:
            killed(left)


def test_children_are_found_and_killed(parent: tuple[subprocess.Popen[bytes], list[int]]) -> None:
    process, ids = parent
    assert children(process.pid) == sorted(ids)
    assert children(ids[0]) == []
    killed(ids[0])
    assert not is_running(ids[0])
    assert children(process.pid) == [ids[1]]
    killed(ids[0])  # once more is no fault
    stopped(process)
    assert children(process.pid) == [ids[1]]


@pytest.mark.skipif(shutil.which("ps") is None, reason="there is no ps")
def test_ps_tells_what_proc_does(
    parent: tuple[subprocess.Popen[bytes], list[int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(faults, "_PROCESSES", tmp_path)
    assert children(parent[0].pid) == sorted(parent[1])
