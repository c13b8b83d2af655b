"""Processors and memory that this process may use, also inside a container or a Slurm job.

Control groups limit both (cgroups(7)). A limit holds for all groups below it, so every group above the process is
read. A file that cannot be read or parsed sets no limit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Control groups of version 1 write "no limit" as a number larger than any machine's memory.
_NO_LIMIT = 2**60
_ROOT = Path("/")


@dataclass(frozen=True)
class _Group:
    """The folder of a control group, and the version of its files."""

    folder: Path
    version: int

    def number(self, name: str) -> int | None:
        """Read the number in one of its files; None for `max` and for anything that is not a number."""
        return _whole("".join(_lines(self.folder / name)))


def usable_processors(*, root: Path | None = None) -> int:
    """Count the processors that this process may keep busy: its CPU affinity, or its quota, rounded up, if smaller.

    All processors on systems that have neither.
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
    """Return the memory that this process can still allocate, in bytes; None if unknown.

    The kernel's estimate of available memory, or less if a control group leaves less. On systems without such an
    estimate: all memory of the machine.
    """
    root = root or _ROOT
    known = [size for size in (_of_machine(root), *map(_left, _groups(root, "memory"))) if size is not None]
    return max(min(known), 0) if known else all_memory_bytes()


def all_memory_bytes() -> int | None:
    """Return the memory of this machine in bytes; None if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def resident_bytes(*, root: Path | None = None) -> int | None:
    """Return the resident memory of this process in bytes; None if unknown."""
    fields = [_whole(word) for word in "".join(_lines((root or _ROOT) / "proc/self/statm")).split()]
    if len(fields) < 2 or fields[1] is None:
        return None
    return fields[1] * os.sysconf("SC_PAGE_SIZE")


def _of_machine(root: Path) -> int | None:
    """Read `MemAvailable` of proc(5): the memory available without swapping."""
    kilobytes = _named(_lines(root / "proc/meminfo"), "MemAvailable:")
    return None if kilobytes is None else kilobytes * 1024


def _left(group: _Group) -> int | None:
    """Return the memory that a group has left. Cached files do not count: the kernel frees them first."""
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
    """Yield the control groups above this process that may limit `controller`, the innermost first."""
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
    # In a container the path is the host's, or leads out of the mounted folder: then the mount is the group itself.
    if ".." in parts or not mount.joinpath(*parts).is_dir():
        parts = []
    for count in range(len(parts), -1, -1):
        yield _Group(mount.joinpath(*parts[:count]), version)


def _named(lines: Iterable[str], name: str) -> int | None:
    """Return the number after `name`, where a line begins with it."""
    found = (line.split() for line in lines)
    return next((_whole(words[1]) for words in found if len(words) > 1 and words[0] == name), None)


def _whole(text: str) -> int | None:
    """Parse a number that is not negative; None for `max`, -1 and any other text."""
    text = text.strip()
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return []
