"""The distinct words of a text and their counts, on which every tokenizer is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PADDING = 16
"""Bytes after the last word, so that kernels can read eight bytes at a time."""


@dataclass(frozen=True)
class Words:
    """Distinct words in UTF-8: word i is `data[offsets[i]:offsets[i + 1]]` and occurs `counts[i]` times.

    Words are sorted by count, highest first. The order does not depend on how threads shared the counting.
    `data` ends with `PADDING` zeros.
    """

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Words:
        """Make words from a plain mapping; surrogates are kept."""
        encoded = [(-count, word.encode("utf-8", "surrogatepass")) for word, count in counts.items()]
        encoded.sort()
        return cls.joined([word for _, word in encoded], [-count for count, _ in encoded])

    @classmethod
    def joined(cls, words: list[bytes], counts: list[int]) -> Words:
        """Make words in the given order."""
        offsets = np.zeros(len(words) + 1, dtype=np.int64)
        offsets[1:] = np.cumsum([len(word) for word in words])
        data = np.frombuffer(b"".join(words) + bytes(PADDING), dtype=np.uint8)
        return cls(data, offsets, np.array(counts, dtype=np.int64))

    def __len__(self) -> int:
        """Return the number of distinct words."""
        return len(self.counts)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        """Yield each word with its count."""
        data = self.data.tobytes()
        bounds = self.offsets.tolist()
        for start, stop, count in zip(bounds, bounds[1:], self.counts.tolist(), strict=False):
            yield data[start:stop], count
