"""Compares tokenizers on the same text: compression, used share of the vocabulary, and speed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from alm.errors import InputError
from alm.tokenizers.file import Tokenizer

FILE_NAME = "tokenizer.json"
_LEAST_SECONDS = 0.2
_COMMONEST = 100


class Compared(Protocol):
    """Methods that a tokenizer needs to be compared."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""

    def count_ids(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return how often each id occurs in the texts."""


@dataclass(frozen=True)
class Measured:
    """Measurements of one tokenizer on a text of several kinds.

    `tokens` and `bytes` are by kind. `used` counts the ids that occur. `commonest_share` is the share of the tokens
    that the hundred most common ids make up. `megabytes_per_second` is text per CPU second, with its words cached.
    """

    name: str
    vocab_size: int
    tokens: Mapping[str, int]
    bytes: Mapping[str, int]
    used: int
    commonest_share: float
    megabytes_per_second: float

    def bytes_per_token(self, kind: str | None = None) -> float:
        """Return the ratio for one kind of text, or for all of it."""
        if kind is None:
            return sum(self.bytes.values()) / max(1, sum(self.tokens.values()))
        return self.bytes[kind] / max(1, self.tokens[kind])


def measure(name: str, tokenizer: Compared, texts: Mapping[str, Sequence[str]]) -> Measured:
    """Measure `tokenizer` on `texts`, by kind."""
    everything = [text for kind in texts.values() for text in kind]
    counts = {kind: tokenizer.count_ids(listed) for kind, listed in texts.items()}
    total = np.sum([*counts.values()], axis=0)
    commonest = np.sort(total)[::-1][:_COMMONEST].sum()
    sizes = {kind: sum(len(text.encode("utf-8")) for text in listed) for kind, listed in texts.items()}
    return Measured(
        name=name,
        vocab_size=tokenizer.vocab_size,
        tokens={kind: int(count.sum()) for kind, count in counts.items()},
        bytes=sizes,
        used=int(np.count_nonzero(total)),
        commonest_share=float(commonest / max(1, total.sum())),
        megabytes_per_second=_speed(tokenizer, everything, sum(sizes.values())),
    )


def _speed(tokenizer: Compared, texts: Sequence[str], size: int) -> float:
    """Return the megabytes of text encoded per CPU second of this process."""
    rounds, began = 0, time.process_time()
    while (spent := time.process_time() - began) < _LEAST_SECONDS:
        tokenizer.count_ids(texts)
        rounds += 1
    return rounds * size / spent / 1e6


def open_tokenizer(path: Path) -> Compared:
    """Open the tokenizer at `path`, a file or a folder of a model, such as a run.

    One that `alm` cannot use goes through the `tokenizers` library, if that is installed.
    """
    inside = path / FILE_NAME
    path = inside if inside.is_file() else path
    try:
        return Ours(Tokenizer.load(path))
    except InputError as refusal:
        if not path.is_file() or "not a tokenizer that `alm` can use" not in refusal.message:
            raise
        try:
            import tokenizers
        except ImportError:
            raise InputError(refusal.message, hint="run `pip install tokenizers` to compare it as it is") from refusal
        return _Foreign(tokenizers.Tokenizer.from_file(str(path)))


class Ours:
    """A tokenizer that `alm` can use."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = tokenizer.vocab_size

    def count_ids(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        return np.bincount(self.tokenizer.encode_batch(texts).ids, minlength=self.vocab_size)


class _Foreign:
    """A tokenizer of the `tokenizers` library. Special tokens in the text are read as text."""

    def __init__(self, tokenizer: Any) -> None:  # Any: of a library that is not always there
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True
        self.vocab_size: int = self._tokenizer.get_vocab_size()

    def count_ids(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        counts = np.zeros(self.vocab_size, dtype=np.int64)
        for one in encoded:
            counts += np.bincount(one.ids, minlength=self.vocab_size)
        return counts
