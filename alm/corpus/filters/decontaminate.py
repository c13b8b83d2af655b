"""Kind `decontaminate`: drops documents that share a run of words with an evaluation item.

Runs have 13 words, as for GPT-3 (Brown et al. 2020, appendix C). A shorter item, or field of an item, must match
entirely, if it has at least `shortest` words: a model can memorize a question of ten words too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from alm.artifacts import as_text
from alm.config import base
from alm.corpus.filters import Candidate, Drop
from alm.corpus.formats._encoding import AUTO, open_utf8
from alm.corpus.paths import Paths, expand
from alm.errors import InputError, quoted
from alm.files import not_utf8, parse_row, suffix

_WORD = re.compile(r"\w+")
_SUFFIXES = frozenset({".jsonl", ".ndjson", ".txt"})
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Config(base.Config):
    """The evaluation files, and the length of a matching run of words."""

    kind: Literal["decontaminate"] = Field(
        default="decontaminate", description="Drop documents that contain evaluation items."
    )
    files: Paths = Field(description="Evaluation files: JSON lines, or text with one item on each line.")
    ngram: int = Field(default=13, ge=1, le=base.MANY, description="Number of consecutive words that make a match.")
    shortest: int = Field(
        default=8, ge=1, le=base.MANY, description="Items shorter than `ngram` are used from this many words on."
    )


def inputs(config: Config) -> list[Path]:
    """Return the evaluation files."""
    return expand(config.files, suffixes=_SUFFIXES)


def build(config: Config) -> Callable[[Candidate], Candidate | Drop]:
    """Build the filter, which keeps the items in memory as hashes."""
    index = _Index(config)

    def judge(candidate: Candidate) -> Candidate | Drop:
        item = index.find(candidate.text)
        return candidate if item is None else Drop("decontaminate_overlap", detail=item)

    return judge


class _Index:
    """Hashes of the runs of words of all items, by the number of words."""

    def __init__(self, config: Config) -> None:
        self._ids: dict[str, int] = {}
        runs: dict[int, dict[int, str]] = {}
        for path in inputs(config):
            for name, text in _items(path):
                words = _WORD.findall(text.lower())
                n = min(config.ngram, len(words))
                if n >= min(config.shortest, config.ngram):
                    ids = np.array([self._ids.setdefault(w, len(self._ids) + 1) for w in words], dtype=np.uint64)
                    for value in _hashes(ids, n).tolist():
                        runs.setdefault(n, {}).setdefault(value, name)
        self._names = runs
        self._sorted = {n: np.array(sorted(found), dtype=np.uint64) for n, found in sorted(runs.items())}

    def find(self, text: str) -> str | None:
        """Return the name of an item with a run that `text` contains, or None."""
        known = self._ids
        ids = np.array([known.get(word, 0) for word in _WORD.findall(text.lower())], dtype=np.uint64)
        for n, wanted in self._sorted.items():
            hashes = _hashes(ids, n)
            # A run with a word that no item contains cannot match.
            unknown = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(ids == 0)])
            hashes = hashes[unknown[n:] == unknown[: len(unknown) - n]] if len(ids) >= n else hashes
            at = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
            met = hashes[wanted[at] == hashes]
            if len(met):
                return self._names[n][int(met[0])]
        return None


def _hashes(ids: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """Return a hash of each run of n ids; none for fewer than n."""
    count = len(ids) - n + 1
    if count < 1:
        return np.zeros(0, dtype=np.uint64)
    found = np.zeros(count, dtype=np.uint64)
    for offset in range(n):
        found = (found ^ (found >> np.uint64(29))) * _MULTIPLIER + ids[offset : offset + count] + np.uint64(1)
    return found


def _items(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each item of an evaluation file."""
    is_json = suffix(path) != ".txt"
    with open_utf8(path, AUTO) as (file, _):
        for number, line in enumerate(file, start=1):
            try:
                texts = _texts(parse_row(line)) if is_json and line.strip() else iter([line.decode("utf-8")])
            except UnicodeDecodeError as error:
                raise not_utf8(path, offset=error.start, byte=line[error.start]) from error
            except ValueError as error:
                raise InputError(
                    f"`{path}` line {number} is not JSON: {error}",
                    hint=f"show the line with `sed -n {number}p {quoted(path)}`",
                ) from error
            for text in texts:
                yield f"{as_text(Path(path.name))}#{number}", text


def _texts(value: Any) -> Iterator[str]:  # Any: JSON
    """Yield all texts in `value`, in order, at any depth."""
    left = [value]
    while left:
        inner = left.pop()
        if isinstance(inner, str):
            yield inner
        elif isinstance(inner, dict):
            left += reversed(inner.values())
        elif isinstance(inner, list):
            left += reversed(inner)
