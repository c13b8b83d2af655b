"""How much memory there is for a run, now: of the device, and on a CPU of whoever limits this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from alm import device as devices

# Version 1 of control groups says "no limit" by a number that no machine has.
_NO_LIMIT = 2**60


def available_bytes(device: torch.device, *, root: Path = Path("/")) -> int | None:
    """Memory that a run on `device` can have beside what is in use; None where nobody tells.

    CUDA: what is free. Metal: what it recommends, less what this process has. CPU: what the kernel calls available,
    or less where a control group (of a container, of Slurm) allows less; all memory where the kernel tells no more.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return max(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory(), 0)
    known = [size for size in (_of_machine(root), *_of_groups(root)) if size is not None]
    return max(min(known), 0) if known else devices.memory_bytes(device)


def resident_bytes(*, root: Path = Path("/")) -> int:
    """Memory that this process has now; the most that it had where the kernel tells no more, 0 where not even that."""
    fields = " ".join(_lines(root / "proc/self/statm")).split()
    if len(fields) > 1:
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
    return devices.peak_memory_bytes(torch.device("cpu")) or 0


def _of_machine(root: Path) -> int | None:
    """`MemAvailable` of proc(5): what can be had without swapping."""
    for line in _lines(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _of_groups(root: Path) -> Iterator[int]:
    """What each control group above this process has left; a limit holds for all groups below."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, limit, usage, cache = root / "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, limit = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
            usage, cache = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        inside = mount / path.strip().lstrip("/")
        # In a container the path is the host's, and what is mounted is the group itself.
        for folder in (inside, *inside.parents) if inside.is_dir() else (mount,):
            left = _left(folder, limit, usage, cache)
            if left is not None:
                yield left
            if folder == mount:
                break


def _left(group: Path, limit: str, usage: str, cache: str) -> int | None:
    most, used = ("".join(_lines(group / name)).strip() for name in (limit, usage))
    if not (most.isdecimal() and used.isdecimal()) or int(most) >= _NO_LIMIT:
        return None
    reclaimable = sum(int(line.split()[1]) for line in _lines(group / "memory.stat") if line.split()[0] == cache)
    return int(most) - int(used) + reclaimable


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
