"""What has to be true of a run's folder once the run is finished, whatever happened on the way."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from typing import Any

from crash import trees
from crash.trees import Tree

_NUMBERED = re.compile(r"ckpt-step(\d{6,})(-interrupt)?\.json")


def _promised(tree: Tree, folder: str) -> dict[str, dict[str, Any]]:
    """The metadata of each numbered checkpoint in `folder`, by the name of its file."""
    found = {}
    for name, entry in tree.items():
        if posixpath.dirname(name) == folder and _NUMBERED.fullmatch(posixpath.basename(name)):
            values = json.loads(entry.data or b"")
            found[values["file"]] = values
    return found


def _data(tree: Tree, name: str) -> bytes | None:
    entry = tree.get(name)
    return None if entry is None else entry.data


def checkpoints(wanted: Tree, tree: Tree, run: str, keep_last: int | None, keep_every: int | None) -> list[str]:
    """Which numbered checkpoints are wrong, missing or too many, and whether the two names point at the right ones.

    A save that failed on the way is no fault, nor is one more because of an error: the newest has to be that of the
    clean run, each has to hold the same tensors where both have it, and retention decides which are there.
    """
    before, now = _promised(wanted, run), _promised(tree, run)
    lines = []
    newest, ours = (max(each, key=lambda file: (each[file]["step"], file), default="") for each in (before, now))
    if not ours or now[ours]["step"] != before[newest]["step"]:
        lines.append(f"`{run}/{newest}` is missing")
    elif ours != newest:  # saved by the way out of an error
        if not trees.same(ours, _data(wanted, f"{run}/{newest}") or b"", _data(tree, f"{run}/{ours}") or b""):
            lines.append(f"`{run}/{ours}` has not the contents of `{newest}`")
        if now[ours].get("bits_per_byte") != before[newest].get("bits_per_byte"):
            lines.append(f"`{run}/{ours}` has not the score of `{newest}`")
    for file in sorted(before.keys() & now.keys()):
        for name in (f"{run}/{file}", f"{run}/{file.removesuffix('.pt')}.json"):
            if not trees.same(name, _data(wanted, name) or b"", _data(tree, name) or b""):
                lines.append(f"`{name}` has other contents")
    for name in tree:
        inside = posixpath.basename(name)
        if posixpath.dirname(name) == run and re.fullmatch(r"ckpt-step\d+.*\.pt", inside) and inside not in now:
            lines.append(f"`{name}` is not promised")
    lines += _pointers(wanted, tree, run, now)
    if keep_last is not None:
        kept = set(sorted(now, key=lambda file: (now[file]["step"], file), reverse=True)[:keep_last])
        kept |= {file for file in now if keep_every and now[file]["step"] % keep_every == 0}
        kept |= {_best(now)} - {None}
        lines += [f"`{run}/{file}` should have been removed" for file in sorted(now.keys() - kept)]
    return lines


def _best(found: dict[str, dict[str, Any]]) -> str | None:
    scored = [file for file in sorted(found) if found[file].get("bits_per_byte") is not None]
    return min(scored, key=lambda file: found[file]["bits_per_byte"]) if scored else None


def _pointers(wanted: Tree, tree: Tree, run: str, found: dict[str, dict[str, Any]]) -> list[str]:
    """Whether `ckpt-last.pt` is the newest checkpoint, and `ckpt-best.pt` that with the best score."""
    # Of two of one step the plain one is newer than that of an error, as its name has it.
    newest = max(found, key=lambda file: (found[file]["step"], file), default=None)
    lines = []
    for pointer, file in (("ckpt-last.pt", newest), ("ckpt-best.pt", _best(found))):
        name = f"{run}/{pointer}"
        data = _data(tree, name)
        if data is None:
            if file is not None and name in wanted:
                lines.append(f"`{name}` is missing")
        elif file is None or hashlib.sha256(data).hexdigest() != found[file]["sha256"]:
            lines.append(f"`{name}` is not `{file}`")
    return lines


def _lines(tree: Tree, name: str) -> list[bytes]:
    return (_data(tree, name) or b"").splitlines()


def rows(wanted: Tree, tree: Tree, run: str) -> list[str]:
    """How the rows of `metrics.jsonl` differ from those of the clean run, but for their clocks."""
    name = f"{run}/metrics.jsonl"
    before, now = (_keyed(_lines(each, name)) for each in (wanted, tree))
    lines = [f"metrics.jsonl has no row for {key}" for key in before if key not in now]
    lines += [f"metrics.jsonl has a row for {key}" for key in now if key not in before]
    lines += [f"metrics.jsonl has {len(now[key])} rows for {key}" for key in now if len(now[key]) > 1]
    lines += [
        f"metrics.jsonl says otherwise for {key}" for key in now if key in before and now[key][0] != before[key][0]
    ]
    return lines


def _keyed(lines: list[bytes]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for line in lines:
        try:
            values = json.loads(line)
            key = f"step {values['step']} ({'score' if 'validation_loss' in values else 'loss'})"
        except (ValueError, TypeError, KeyError):
            key = f"the damaged line {line[:40]!r}"
        found.setdefault(key, []).append(trees.without_clocks(line))
    return found


def lost(start: Tree, tree: Tree, run: str, step: int) -> list[str]:
    """What came after `step` and is not set aside."""
    lines = []
    folders = sorted({posixpath.dirname(name) for name in tree if name.startswith(f"{run}/set-aside-")})
    for name, entry in start.items():
        inside = posixpath.basename(name)
        numbered = _NUMBERED.fullmatch(inside)
        if posixpath.dirname(name) == run and numbered and int(numbered[1]) > step:
            file = json.loads(entry.data or b"")["file"]
            pair = ((inside, entry.data), (file, _data(start, f"{run}/{file}")))
            if not any(all(_data(tree, f"{folder}/{n}") == data for n, data in pair) for folder in folders):
                lines.append(f"the old `{file}` is nowhere with its metadata")
    for file in ("metrics.jsonl", "samples.jsonl"):
        kept = {row for folder in folders for row in _lines(tree, f"{folder}/{file}")}
        later = [row for row in _lines(start, f"{run}/{file}") if json.loads(row)["step"] > step]
        missing = [row for row in later if row not in kept]
        if missing:
            lines.append(f"{len(missing)} of {len(later)} old rows of {file} are nowhere")
    return lines
