"""The commands that metadata records, checked before a hint proposes one of them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from alm.errors import shell

Stage = tuple[str, ...]
"""The first words of a command."""
# The options that the command of an artifact may have in addition to `--out`: each takes a value.
_OPTIONS: dict[Stage, frozenset[str]] = {
    ("alm", "corpus", "prepare"): frozenset({"--src", "--set", "--limit", "--only"}),
    ("alm", "tokenizer", "train"): frozenset({"--vocab-size", "--kind", "--set", "--input"}),
    ("alm", "pack"): frozenset(
        {"--tokenizer", "--seq-len", "--shard-size", "--dtype", "--mode", "--val-fraction", "--from"}
        | {"--from-dtype", "--in"}
    ),
    ("alm", "export"): frozenset({"--checkpoint", "--to", "--dtype", "--set"}),
    ("alm", "import"): frozenset({"--from"}),
    ("alm", "quantize"): frozenset({"--to", "--text", "--tables", "--samples"}),
}
_DEFAULT_OUT: dict[Stage, tuple[str, ...]] = {
    ("alm", "corpus", "prepare"): ("data/clean",),
    ("alm", "tokenizer", "train"): ("artifacts/tokenizer.json",),
    ("alm", "pack"): ("data/packed",),
}


def command_of(command: str, *, stage: Stage, out: Path, only: str | None = None, otherwise: str) -> str:
    """Return the command that makes the artifact at `out` again, for a hint; `otherwise` if `command` is another.

    `command` is what metadata records, which may come from a stranger: it must be one of `stage`, use only options that
    `stage` records, and write to `out`, and there to the source `only`. The words are quoted again.
    """
    try:
        words = shlex.split(command)
        given = _options(words[len(stage) :])
        places = {os.path.realpath(place) for place in given.pop("--out", []) or _DEFAULT_OUT.get(stage, ())}
    except ValueError:
        return otherwise
    is_own = tuple(words[: len(stage)]) == stage and places == {os.path.realpath(out)}
    is_named = only is None or given.get("--only") == [only]
    return shell(*words) if is_own and is_named and given.keys() <= _OPTIONS[stage] else otherwise


def _options(words: Sequence[str]) -> dict[str, list[str]]:
    """Collect the options among `words`, each with its values."""
    found: dict[str, list[str]] = {}
    left = iter(words)
    for word in left:
        if word.startswith("-") and word != "-":
            name, equals, value = word.partition("=")
            found.setdefault(name, []).append(value if equals else next(left, ""))
    return found
