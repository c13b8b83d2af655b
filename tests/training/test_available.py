"""Memory that a run can have, on machines made of files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from alm import device
from alm.training.available import available_bytes

CPU = torch.device("cpu")
GB = 2**30
MEMINFO = "MemTotal:       24000000 kB\nMemFree:        1000000 kB\nMemAvailable:   {kB} kB\nBuffers: 5 kB\n"


def machine(root: Path, files: dict[str, str], *, available: int = 16 * GB) -> Path:
    files = {"proc/meminfo": MEMINFO.format(kB=available // 1024), **files}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def group(folder: str, *, most: int | str, used: int, cache: int = 0) -> dict[str, str]:
    stat = f"anon 5\ninactive_file {cache}\nactive_file 7\n"
    return {f"{folder}/memory.max": f"{most}\n", f"{folder}/memory.current": f"{used}\n", f"{folder}/memory.stat": stat}


def test_without_limits_it_is_what_the_kernel_calls_available(tmp_path: Path) -> None:
    assert available_bytes(CPU, root=machine(tmp_path, {"proc/self/cgroup": "0::/\n"})) == 16 * GB


def test_the_tightest_group_above_the_process_counts_and_cached_files_are_free(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/slurm/job 7/step\n"}
    files |= group("sys/fs/cgroup/slurm/job 7/step", most="max", used=GB)
    files |= group("sys/fs/cgroup/slurm/job 7", most=4 * GB, used=3 * GB, cache=GB // 2)
    files |= group("sys/fs/cgroup/slurm", most=8 * GB, used=3 * GB)
    assert available_bytes(CPU, root=machine(tmp_path, files)) == 4 * GB - 3 * GB + GB // 2


def test_in_a_container_the_group_is_what_is_mounted(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/docker/abc\n", **group("sys/fs/cgroup", most=2 * GB, used=GB // 2)}
    assert available_bytes(CPU, root=machine(tmp_path, files)) == 2 * GB - GB // 2


def test_groups_of_version_1(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory/job"
    files = {
        "proc/self/cgroup": "9:cpu,cpuacct:/other\n4:memory:/job\n0::/\n",
        f"{folder}/memory.limit_in_bytes": f"{3 * GB}\n",
        f"{folder}/memory.usage_in_bytes": f"{GB}\n",
        f"{folder}/memory.stat": f"inactive_file 1\ntotal_inactive_file {GB // 4}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GB}\n",
    }
    assert available_bytes(CPU, root=machine(tmp_path, files)) == 2 * GB + GB // 4


def test_a_group_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", **group("sys/fs/cgroup", most=GB, used=GB + 5)}
    assert available_bytes(CPU, root=machine(tmp_path, files)) == 0


def test_where_the_kernel_tells_nothing_it_is_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "memory_bytes", lambda _: 123)
    assert available_bytes(CPU, root=tmp_path) == 123
