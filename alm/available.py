"""What this process may use of its machine: processors and memory, also inside a container or a job of Slurm.

Control groups limit both (cgroups(7)). A limit holds for all groups below, so that each group above the process is
asked; what cannot be read or understood does not limit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Version 1 of control groups says "no limit" by a number that no machine has.
_NO_LIMIT = 2**60
_ROOT = Path("/")


@dataclass(frozen=True)
class _Group:
    """The folder of a control group, in which version of them."""

    folder: Path
    version: int

    def number(self, name: str) -> int | None:
        """The number in one of its files; None where it says `max`, or nothing that can be used."""
        return _whole("".join(_lines(self.folder / name)))


def usable_processors(*, root: Path | None = None) -> int:
    """Processors that this process may keep busy: those it may run on, or fewer by a quota, a part rounded up.

    Only some systems have either; elsewhere it is all of them.
    """
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(min([found or 1, *_quotas(root or _ROOT)]), 1)


def _quotas(root: Path) -> Iterator[int]:
    for group in _groups(root, "cpu"):
        if group.version == 2:
            limit = [_whole(word) for word in "".join(_lines(group.folder / "cpu.max")).split()]
            quota, period = limit if len(limit) == 2 else (None, None)
        else:
            quota, period = group.number("cpu.cfs_quota_us"), group.number("cpu.cfs_period_us")
        if quota and period:
            yield -(-quota // period)


def memory_bytes(*, root: Path | None = None) -> int | None:
    """Memory that this process can have beside what is in use; all there is where the system says no more.

    What the kernel calls available, or less where a control group leaves less. None where nothing is known.
    """
    root = root or _ROOT
    known = [size for size in (_of_machine(root), *map(_left, _groups(root, "memory"))) if size is not None]
    return max(min(known), 0) if known else all_memory_bytes()


def all_memory_bytes() -> int | None:
    """The memory of this machine; None where it is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def resident_bytes(*, root: Path | None = None) -> int | None:
    """Memory that this process has now; None where it is not known."""
    fields = [_whole(word) for word in "".join(_lines((root or _ROOT) / "proc/self/statm")).split()]
    if len(fields) < 2 or fields[1] is None:
        return None
    return fields[1] * os.sysconf("SC_PAGE_SIZE")


def _of_machine(root: Path) -> int | None:
    """`MemAvailable` of proc(5): what can be had without swapping."""
    kilobytes = _named(_lines(root / "proc/meminfo"), "MemAvailable:")
    return None if kilobytes is None else kilobytes * 1024


def _left(group: _Group) -> int | None:
    """What a group has left: cached files are given back before it is full."""
    limits: tuple[str, ...]
    if group.version == 2:
        limits, usage, cache = ("memory.max", "memory.high"), "memory.current", "inactive_file"
    else:
        limits, usage, cache = ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"
    known = [most for name in limits if (most := group.number(name)) is not None and most < _NO_LIMIT]
    used = group.number(usage)
    if not known or used is None:
        return None
    return min(known) - used + (_named(_lines(group.folder / "memory.stat"), cache) or 0)


def _groups(root: Path, controller: str) -> Iterator[_Group]:
    """The control groups above this process that may limit `controller`, the innermost first."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon:
            continue
        if number == "0" and not controllers:
            yield from _above(root / "sys/fs/cgroup", path, version=2)
        elif controller in controllers.split(","):
            mounts = [root / "sys/fs/cgroup" / name for name in (controllers, controller)]
            yield from _above(next((mount for mount in mounts if mount.is_dir()), mounts[-1]), path, version=1)


def _above(mount: Path, path: str, *, version: int) -> Iterator[_Group]:
    parts = [part for part in path.split("/") if part]
    # In a container the path is the host's, or leads out of what is mounted, which is the group itself.
    if ".." in parts or not mount.joinpath(*parts).is_dir():
        parts = []
    for count in range(len(parts), -1, -1):
        yield _Group(mount.joinpath(*parts[:count]), version)


def _named(lines: Iterable[str], name: str) -> int | None:
    """The number behind `name`, at the beginning of a line."""
    found = (line.split() for line in lines)
    return next((_whole(words[1]) for words in found if len(words) > 1 and words[0] == name), None)


def _whole(text: str) -> int | None:
    """The whole number that `text` is, None for `max`, -1 and all else."""
    text = text.strip()
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return []
