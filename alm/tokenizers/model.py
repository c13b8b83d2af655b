"""Protocol of a tokenizer model: the part of a tokenizer that turns one word into ids.

Each kind in `alm.tokenizers.models` is a module with

- `Config`, with the field `pattern` and any others that decide the vocabulary;
- `TYPE`, its name in `tokenizer.json`, and `KEYS`, the keys that it has there;
- `train(words, *, config, vocab_size, on_event) -> Model`;
- `read(fragment, *, specials, added, byte_level, blank_sign, fault) -> Model`, from the value of `model` in
  `tokenizer.json`: `added` are the added tokens that are found in text, and `blank_sign` is written for a blank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from alm.errors import InputError

Json = dict[str, Any]  # Any: parsed JSON, checked key by key where it is read
Fault = Callable[[str], InputError]
"""Makes the error for a file from its fault, as in `has no merges`."""

Bytes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int32]
Bounds = npt.NDArray[np.int64]


class NativeEncoder(Protocol):
    """Encodes many texts in compiled code. It caches words, so each thread has its own."""

    def encode(self, data: Bytes, bounds: Bounds) -> tuple[Ids, Bounds]:
        """Return the ids of all texts, and the offsets of each text's ids with the end of the last.

        Text i is `data[bounds[i]:bounds[i + 1]]`, UTF-8; `data` ends with `alm.tokenizers.words.PADDING` zeros.
        """


class Model(Protocol):
    """A trained model."""

    @property
    def kind(self) -> str:
        """Name of its module."""

    @property
    def tokens(self) -> Sequence[bytes]:
        """Bytes of each id; for special tokens and the unknown token, their text."""

    @property
    def byte_level(self) -> bool:
        """Whether its alphabet is bytes (`alm.tokenizers.alphabet`), rather than characters."""

    def written(self, specials: Mapping[str, int]) -> Sequence[str]:
        """Return the name of each token in `tokenizer.json`, by id."""

    def fragment(self, specials: Mapping[str, int]) -> Json:
        """Return the value of `model` in `tokenizer.json`."""

    def word_encoder(self) -> Callable[[bytes], list[int]]:
        """Return a function in plain Python from a word (UTF-8) to its ids."""

    def native_encoder(self, pattern: str) -> NativeEncoder:
        """Return an encoder in compiled code for texts split by `pattern`."""
