"""What a tokenizer model is: the part of a tokenizer that turns one word into ids.

Each kind in `alm.tokenizers.models` is a module with

- `Config`, with the fields `pattern` and whatever else decides the vocabulary;
- `TYPE`, what `tokenizer.json` calls it;
- `train(words, *, config, vocab_size, on_event) -> Model`;
- `read(fragment, *, specials, byte_level, fault) -> Model`, from the value of `model` in `tokenizer.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from alm.errors import InputError

Json = dict[str, Any]  # Any: parsed JSON, checked key by key where it is read
Fault = Callable[[str], InputError]
"""Makes the refusal of a file from what it does wrong, as in `has no merges`."""

Bytes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int32]
Bounds = npt.NDArray[np.int64]


class NativeEncoder(Protocol):
    """Encodes many texts in compiled code. It remembers words, so each thread has one of its own."""

    def encode(self, data: Bytes, bounds: Bounds) -> tuple[Ids, Bounds]:
        """The ids of all texts, and where those of each begin and the last end.

        Text i is `data[bounds[i]:bounds[i + 1]]`, UTF-8; `data` ends with `alm.tokenizers.words.PADDING` zeros.
        """


class Model(Protocol):
    """A trained model."""

    @property
    def kind(self) -> str:
        """The name of its module."""

    @property
    def tokens(self) -> Sequence[bytes]:
        """The bytes of each id; a special token and the unknown token have their own text."""

    @property
    def byte_level(self) -> bool:
        """Whether its alphabet is bytes written as characters (`alm.tokenizers.alphabet`), or characters themselves."""

    def fragment(self, specials: Mapping[str, int]) -> Json:
        """The value of `model` in `tokenizer.json`."""

    def word_encoder(self) -> Callable[[bytes], list[int]]:
        """A function from a word, UTF-8, to its ids, in plain Python."""

    def native_encoder(self, pattern: str) -> NativeEncoder:
        """An encoder in compiled code of texts split by `pattern`."""
