"""What metadata promises, read by itself: this module knows the formats from docs/formats.md, and imports no `alm`."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterator
from typing import Any

from crash.trees import Tree


def broken(tree: Tree) -> list[str]:
    """Every promise that the files of `tree` do not keep, a line each. Hidden folders promise nothing."""
    lines = []
    for name, entry in sorted(tree.items()):
        if entry.data is None or any(part.startswith(".") for part in name.split("/")):
            continue
        if name.endswith(".json"):
            lines += _metadata(tree, name, entry.data)
        elif posixpath.basename(name) in ("ckpt-last.pt", "ckpt-best.pt"):
            lines += _pointer(tree, name, entry.data)
    return lines


def _metadata(tree: Tree, name: str, data: bytes) -> list[str]:
    try:
        values = json.loads(data)
    except ValueError:
        return [f"`{name}` is not JSON"]
    if not isinstance(values, dict):
        return []
    folder = posixpath.dirname(name)
    lines = []
    for file, sha256 in _promised(values):
        path = posixpath.normpath(posixpath.join(folder, file))
        entry = tree.get(path)
        if entry is None or entry.data is None:
            lines.append(f"`{name}` promises `{file}`, which is not there")
        elif hashlib.sha256(entry.data).hexdigest() != sha256:
            lines.append(f"`{name}` promises `{file}` with another hash")
    return lines


def _promised(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    match values.get("format"):
        case "alm-clean":
            for shard in values["shards"]:
                yield shard["file"], shard["sha256"]
                if shard.get("lines_file"):
                    yield shard["lines_file"], shard["lines_sha256"]
        case "alm-tokenizer":
            yield values["file"]["path"], values["file"]["sha256"]
        case "alm-packed":
            for shard in values["shards"]:
                yield shard["file"], shard["sha256"]
                yield shard["index_file"], shard["index_sha256"]
            yield values["tokenizer_file"], values["tokenizer_sha256"]
        case "alm-checkpoint":
            yield values["file"], values["sha256"]
        case "alm-run":
            yield "tokenizer.json", values["tokenizer_sha256"]
        case "alm-export" | "alm-import":
            for file in values["files"]:
                yield file["path"], file["sha256"]


def payloads(tree: Tree) -> dict[str, set[str]]:
    """The files that each metadata of `tree` promises, by its name."""
    found = {}
    for name, entry in tree.items():
        if name.endswith(".json") and entry.data is not None and not any(p.startswith(".") for p in name.split("/")):
            try:
                values = json.loads(entry.data)
            except ValueError:
                continue
            files = [file for file, _ in _promised(values)] if isinstance(values, dict) else []
            if files:
                folder = posixpath.dirname(name)
                found[name] = {posixpath.normpath(posixpath.join(folder, file)) for file in files}
    return found


def _pointer(tree: Tree, name: str, data: bytes) -> list[str]:
    """`ckpt-last.pt` and `ckpt-best.pt` are whole when they are a numbered checkpoint that is promised."""
    digest = hashlib.sha256(data).hexdigest()
    return [] if digest in set(checkpoints(tree, posixpath.dirname(name)).values()) else [f"`{name}` is not promised"]


def checkpoints(tree: Tree, folder: str) -> dict[str, str]:
    """The hash of each numbered checkpoint that is promised in `folder`, by its metadata's name."""
    found = {}
    for name, entry in tree.items():
        inside = posixpath.basename(name)
        if posixpath.dirname(name) == folder and inside.startswith("ckpt-step") and inside.endswith(".json"):
            try:
                found[inside] = json.loads(entry.data or b"")["sha256"]
            except (ValueError, KeyError, TypeError):
                continue
    return found
