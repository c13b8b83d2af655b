"""Processors and memory that a process can have, on machines made of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from alm import available
from alm.available import memory_bytes, resident_bytes, usable_processors

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
    assert memory_bytes(root=machine(tmp_path, {"proc/self/cgroup": "0::/\n"})) == 16 * GB


def test_the_tightest_group_above_the_process_counts_and_cached_files_are_free(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/slurm/job 7/step\n"}
    files |= group("sys/fs/cgroup/slurm/job 7/step", most="max", used=GB)
    files |= group("sys/fs/cgroup/slurm/job 7", most=4 * GB, used=3 * GB, cache=GB // 2)
    files |= group("sys/fs/cgroup/slurm", most=8 * GB, used=3 * GB)
    assert memory_bytes(root=machine(tmp_path, files)) == 4 * GB - 3 * GB + GB // 2


def test_in_a_container_the_group_is_what_is_mounted(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/docker/abc\n", **group("sys/fs/cgroup", most=2 * GB, used=GB // 2)}
    assert memory_bytes(root=machine(tmp_path, files)) == 2 * GB - GB // 2


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
    assert memory_bytes(root=machine(tmp_path, files)) == 2 * GB + GB // 4


def test_a_group_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", **group("sys/fs/cgroup", most=GB, used=GB + 5)}
    assert memory_bytes(root=machine(tmp_path, files)) == 0


def test_where_the_kernel_tells_nothing_it_is_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(available, "all_memory_bytes", lambda: 123)
    assert memory_bytes(root=tmp_path) == 123


def test_the_limit_from_which_a_group_is_slowed_down_counts_too(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/job\n", **group("sys/fs/cgroup/job", most=8 * GB, used=GB)}
    files["sys/fs/cgroup/job/memory.high"] = f"{3 * GB}\n"
    assert memory_bytes(root=machine(tmp_path, files)) == 2 * GB
    files["sys/fs/cgroup/job/memory.high"], files["sys/fs/cgroup/job/memory.max"] = "max\n", "max\n"
    assert memory_bytes(root=machine(tmp_path, files)) == 16 * GB


RUBBISH = ["", "\n", "max", "-1\n", "x y\n", "1e5 100000\n", "9" * 5000, "0 0\n", "\x00"]


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_what_cannot_be_understood_does_not_limit(tmp_path: Path, many: int, rubbish: str) -> None:
    names = ["cpu.max", "memory.max", "memory.high", "memory.current", "memory.stat", "cpu.cfs_quota_us"]
    files = {f"sys/fs/cgroup/{name}": rubbish for name in names}
    assert usable_processors(root=machine(tmp_path, {"proc/self/cgroup": "0::/\n1:cpu:/\n", **files})) == many
    assert memory_bytes(root=tmp_path) == 16 * GB
    (tmp_path / "proc/self/cgroup").write_text(rubbish)
    assert usable_processors(root=tmp_path) == many
    assert memory_bytes(root=tmp_path) == 16 * GB
    (tmp_path / "proc/meminfo").write_bytes(b"\xff MemAvailable: 5 kB\n")
    assert memory_bytes(root=tmp_path) == available.all_memory_bytes()


@pytest.mark.parametrize("pages", ["", "5\n", "5 x 7\n", None])
def test_where_pages_are_not_counted_nothing_is_known_of_them(tmp_path: Path, pages: str | None) -> None:
    assert resident_bytes(root=machine(tmp_path, {} if pages is None else {"proc/self/statm": pages})) is None


def test_folders_in_place_of_files_do_not_limit(tmp_path: Path, many: int) -> None:
    root = machine(tmp_path, {"proc/self/cgroup": "0::/\n"})
    for name in ("cpu.max", "memory.max", "memory.current"):
        (root / "sys/fs/cgroup" / name).mkdir(parents=True)
    assert usable_processors(root=root) == many
    assert memory_bytes(root=root) == 16 * GB


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> int:
    """Processors of the machine, all of which this process may run on."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    return 64


@pytest.mark.parametrize(
    ("quota", "processors"),
    [
        ("max 100000", 64),
        ("100000", 64),
        ("200000 0", 64),
        ("150000 100000", 2),
        ("100000 100000", 1),
        ("5000 100000", 1),
        ("3200000 50000", 64),
        ("250000 50000", 5),
        ("9900000 100000", 64),
    ],
)
@pytest.mark.usefixtures("many")
def test_a_quota_is_rounded_up(tmp_path: Path, quota: str, processors: int) -> None:
    files = {"proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/cpu.max": f"{quota}\n"}
    assert usable_processors(root=machine(tmp_path, files)) == processors


@pytest.mark.usefixtures("many")
def test_the_smallest_quota_of_all_groups_above_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/slurm/job 7/step\n",
        "sys/fs/cgroup/slurm/job 7/step/cpu.max": "max 100000\n",
        "sys/fs/cgroup/slurm/job 7/cpu.max": "400000 100000\n",
        "sys/fs/cgroup/slurm/cpu.max": "800000 100000\n",
    }
    assert usable_processors(root=machine(tmp_path, files)) == 4
    assert usable_processors(root=machine(tmp_path, {"sys/fs/cgroup/slurm/cpu.max": "300000 100000\n"})) == 3


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_quotas_of_version_1(tmp_path: Path, many: int, mount: str) -> None:
    group = f"sys/fs/cgroup/{mount}"
    files = {
        "proc/self/cgroup": "9:cpu,cpuacct:/job\n4:memory:/job\n0::/\n",
        f"{group}/job/cpu.cfs_quota_us": "150000\n",
        f"{group}/job/cpu.cfs_period_us": "100000\n",
        f"{group}/cpu.cfs_quota_us": "-1\n",
        f"{group}/cpu.cfs_period_us": "100000\n",
    }
    assert usable_processors(root=machine(tmp_path, files)) == 2
    assert usable_processors(root=machine(tmp_path, {f"{group}/job/cpu.cfs_quota_us": "-1\n"})) == many


@pytest.mark.usefixtures("many")
def test_a_group_outside_of_what_is_mounted_is_not_looked_for(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/../../other\n",
        "sys/fs/cgroup/cpu.max": "200000 100000\n",
        "sys/cpu.max": "100000 100000\n",
        "sys/other/cpu.max": "100000 100000\n",
    }
    assert usable_processors(root=machine(tmp_path, files)) == 2


def test_a_process_may_run_on_fewer_processors_than_its_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3}, raising=False)
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}
    assert usable_processors(root=machine(tmp_path, files)) == 1
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert usable_processors(root=tmp_path) == 1


def test_all_who_ask_for_processors_hear_of_the_quota(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    from alm import device
    from alm.cli import options, ranks

    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}
    monkeypatch.setattr(available, "usable_processors", usable_processors)  # not that of tests/conftest.py
    monkeypatch.setattr(available, "_ROOT", machine(tmp_path, files))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 32)
    used: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    assert options.worker_count("auto") == 3
    assert ranks._threads(2) == 1
    for omp_num_threads, expected in ((None, [3]), ("32", [])):
        used.clear()
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if omp_num_threads is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", omp_num_threads)
        device.keep_to_processors.cache_clear()
        device.choose("cpu", precision="fp32")
        device.choose("cpu", precision="fp32")  # what a run has set since stays
        assert used == expected
    device.keep_to_processors.cache_clear()
