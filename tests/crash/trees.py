"""Folders as values: taken, put back, compared."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OLD_NS = 1_600_000_000_000_000_000  # files of input were written long ago
# The fields that hold times, speeds and memory, and the checksum over them: all that may differ in equal artifacts.
# Of `.pt` files the tensors and values are compared: a resumed run shares other strings in the pickle.
CLOCKS = frozenset(
    {
        "seconds",
        "planned_ns",
        "modified_ns",
        "tokens_per_second",
        "step_seconds",
        "mfu",
        "data_wait_share",
        "memory_bytes",
        "checksum",
    }
)


@dataclass(frozen=True)
class Entry:
    """A file, a folder (`data` is None) or a symlink. Files of one `group` are links to the same bytes."""

    data: bytes | None
    modified_ns: int = 0
    link: str | None = None
    group: int = -1


Tree = dict[str, Entry]


def take(root: Path) -> Tree:
    """What lies under `root`."""
    found: Tree = {}
    groups: dict[tuple[int, int], int] = {}
    for folder, folders, names in os.walk(root):
        inside = os.path.relpath(folder, root)
        prefix = "" if inside == "." else inside + "/"
        for name in sorted(folders):
            found[prefix + name] = Entry(None)
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                found[prefix + name] = Entry(None, link=os.readlink(path))
                continue
            status = os.stat(path)
            group = groups.setdefault((status.st_dev, status.st_ino), len(groups)) if status.st_nlink > 1 else -1
            with open(path, "rb") as file:
                found[prefix + name] = Entry(file.read(), status.st_mtime_ns, None, group)
    return found


def put(tree: Tree, root: Path) -> None:
    """Make `root` hold exactly `tree`."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    firsts: dict[int, str] = {}
    for name in sorted(tree):
        entry, path = tree[name], os.path.join(root, name)
        if entry.link is not None:
            os.symlink(entry.link, path)
        elif entry.data is None:
            os.makedirs(path, exist_ok=True)
        elif entry.group >= 0 and entry.group in firsts:
            os.link(firsts[entry.group], path)
        else:
            with open(path, "wb") as file:
                file.write(entry.data)
            os.utime(path, ns=(entry.modified_ns, entry.modified_ns))
            firsts.setdefault(entry.group, path)


def part(tree: Tree, *prefixes: str) -> Tree:
    """What of `tree` lies at or under the `prefixes`, and the folders above."""

    def is_in(name: str) -> bool:
        return any(name == p or name.startswith(p + "/") for p in prefixes)

    kept = {name: entry for name, entry in tree.items() if is_in(name)}
    for name in list(kept):
        while "/" in name:
            name = name.rpartition("/")[0]
            kept[name] = Entry(None)
    return kept


def digest(tree: Tree, scrub: Callable[[bytes], bytes]) -> str:
    """A hash of what `tree` says, `scrub`bed of what is different each time."""
    whole = hashlib.sha256()
    for name in sorted(tree):
        entry = tree[name]
        data = b"/" if entry.data is None else entry.data
        if entry.data is not None and len(data) < 1 << 16:
            data = scrub(data)
        whole.update(scrub(name.encode("utf-8", "surrogateescape")) + b"\0" + hashlib.sha256(data).digest())
    return whole.hexdigest()


_CLOCK_IN_TEXT = re.compile(
    rb'"(' + "|".join(sorted(CLOCKS)).encode() + rb')": ?([-+0-9.eE]+|\{[^{}]*\}|"[0-9a-f]{64}")'
)
# A row of the report of a corpus about a step: its seconds, its share of them, its speed; the slowest comes first.
_CLOCK_IN_PAGE = re.compile(rb"<tr>(?:(?!</tr>).)* (?:bytes|[kMGT]B)/s</td></tr>\n?")


def without_clocks(data: bytes) -> bytes:
    """JSON text, or a page, with its times set to nothing."""
    return _CLOCK_IN_PAGE.sub(b"", _CLOCK_IN_TEXT.sub(rb'"\1": 0', data))


def same(name: str, first: bytes, second: bytes, promised: Iterable[str] = ()) -> bool:
    """Whether two files say the same but for their clocks."""
    if first == second:
        return True
    if name.endswith(".pt"):
        return _same_tensors(first, second)
    if re.search(r"ckpt-[^/]*\.json$", name):  # its hash is that of a file which is compared by itself
        return _loaded(first, "sha256", "bytes") == _loaded(second, "sha256", "bytes")
    if name.endswith((".json", ".jsonl", ".html")):
        return without_clocks(first) == without_clocks(second)
    return False


def _loaded(data: bytes, *without: str) -> object:
    try:
        value = json.loads(data)
    except ValueError:
        return data
    return {key: item for key, item in value.items() if key not in (*without, *CLOCKS)}


def _same_tensors(first: bytes, second: bytes) -> bool:
    import io

    import torch

    try:
        return _equal(*(torch.load(io.BytesIO(data), weights_only=True) for data in (first, second)))
    except Exception:  # noqa: BLE001 - not a checkpoint at all
        return False


def _equal(first: Any, second: Any) -> bool:
    import torch

    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        keys = first.keys() - CLOCKS
        return (
            isinstance(second, dict)
            and keys == second.keys() - CLOCKS
            and all(_equal(first[key], second[key]) for key in keys)
        )
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_equal, first, second))
    return bool(first == second)


def differences(wanted: Tree, found: Tree, ignore: Callable[[str], bool]) -> list[str]:
    """How `found` differs from `wanted`, a line each."""
    lines = []
    for name in sorted(wanted.keys() | found.keys()):
        if ignore(name):
            continue
        first, second = wanted.get(name), found.get(name)
        if second is None:
            lines.append(f"`{name}` is missing")
        elif first is None:
            lines.append(f"`{name}` is there and should not be")
        elif (first.data is None) != (second.data is None):
            lines.append(f"`{name}` is of another sort")
        elif first.data is not None and second.data is not None and not same(name, first.data, second.data):
            lines.append(f"`{name}` has other contents")
    return lines
