"""What a power cut may take: the order in which a clean run brings its files and folders to the disk.

A file is on the disk after its fsync, a name after the fsync of its folder. Of a run without a fault the order of the
changes is known, so this can be read off it: no promise may get its name before all that it promises is on the disk
with its names, and no promised file may be replaced before the withdrawal of the old promise is. While a journal is on
the disk its folder may be in any order, since it will be completed; before the journal goes, all has to be there.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from crash import promises
from crash.sitting import Operation
from crash.trees import Tree

JOURNAL = "/.journal.json"


def misordered(start: Tree, end: Tree, operations: Iterable[Operation]) -> list[str]:
    """Every instant of a clean run at which a power cut could break a promise, a line each."""
    payload = {**promises.payloads(start), **promises.payloads(end)}
    files: set[str] = set()  # with contents that are not on the disk
    names: set[str] = set()  # that appeared, went or changed, and are not on the disk
    there = {name for name in start if name in payload}
    journals: set[str] = set()
    lines = []
    for each in operations:
        path = each.path
        if each.name in ("create", "open", "write", "copy", "truncate"):
            files.add(path)
            if each.name == "create":
                names.add(path)
        elif each.name == "fsync":
            files.discard(path)
            names = {name for name in names if posixpath.dirname(name) != path.removeprefix(".")}
        elif each.name in ("rename", "link"):
            if each.source in files:
                files.add(path)
            else:
                files.discard(path)
            if each.name == "rename":
                files.discard(each.source)
                names.add(each.source)
                there.discard(each.source)
            names.add(path)
            if path.endswith(JOURNAL):
                journals.add(path)
            if not any(f"{path}/".startswith(posixpath.dirname(journal) + "/") for journal in journals - names):
                lines += _at_rename(path, payload, files, names, there)
            if path in payload:
                there.add(path)
        elif each.name == "unlink":
            if path in journals:
                journals.discard(path)
                lines += _at_end(posixpath.dirname(path), payload, files | names, there)
            files.discard(path)
            names.add(path)
            there.discard(path)
    lines += _at_end("", payload, files | names, there)
    return list(dict.fromkeys(lines))


def _at_end(folder: str, payload: dict[str, set[str]], dirty: set[str], there: set[str]) -> list[str]:
    """Promises below `folder` that a power cut could still take or break."""
    lines = []
    for name in sorted(payload):
        if name in there and f"/{name}".startswith(f"/{folder}/".replace("//", "/")):
            lost = sorted(file for file in {name, *payload[name]} if file in dirty)
            lines += [f"`{file}` may not be on the disk at the end" for file in lost]
    return lines


def _at_rename(path: str, payload: dict[str, set[str]], files: set[str], names: set[str], there: set[str]) -> list[str]:
    lines = []
    if path in payload:
        if path in files:
            lines.append(f"`{path}` gets its name before its contents are on the disk")
        missing = sorted(file for file in payload[path] if file in files | names)
        lines += [f"`{path}` gets its name while `{file}` is not on the disk" for file in missing]
    for promise, promised in payload.items():
        if path in promised and promise in names and promise not in there:
            lines.append(f"`{path}` is replaced before the disk knows that `{promise}` is withdrawn")
    return lines
