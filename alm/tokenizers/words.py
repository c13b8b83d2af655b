"""The distinct words of a text and how often each occurs: what every tokenizer is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PADDING = 16
"""Bytes behind the last word, so that kernels may read eight bytes at a time."""


@dataclass(frozen=True)
class Words:
    """Word i is `data[offsets[i]:offsets[i + 1]]`, its UTF-8, and occurs `counts[i]` times.

    The order is that of the counts, highest first, and does not depend on how the counting was shared out.
    `data` ends with `PADDING` zeros.
    """

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Words:
        """The words of a plain mapping; surrogates are kept."""
        encoded = [(-count, word.encode("utf-8", "surrogatepass")) for word, count in counts.items()]
        encoded.sort()
        return cls.joined([word for _, word in encoded], [-count for count, _ in encoded])

    @classmethod
    def joined(cls, words: list[bytes], counts: list[int]) -> Words:
        """The words in the order given."""
        offsets = np.zeros(len(words) + 1, dtype=np.int64)
        offsets[1:] = np.cumsum([len(word) for word in words])
        data = np.frombuffer(b"".join(words) + bytes(PADDING), dtype=np.uint8)
        return cls(data, offsets, np.array(counts, dtype=np.int64))

    def __len__(self) -> int:
        """How many distinct words there are."""
        return len(self.counts)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        """Each word with its count."""
        data = self.data.tobytes()
        bounds = self.offsets.tolist()
        for start, stop, count in zip(bounds, bounds[1:], self.counts.tolist(), strict=False):
            yield data[start:stop], count
