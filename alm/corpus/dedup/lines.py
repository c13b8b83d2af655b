"""Keys of lines: which lines do many earlier documents contain, and what is left of a text without them?

A line counts once for each document, without the white space around it; blank lines do not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alm.corpus.dedup.minhash import hashes_of_spans

_MARGIN = b"\n" * 8  # `hashes_of_spans` reads 8 bytes at a time, up to 7 beyond the last span

Keys = NDArray[np.uint64]


def keys_of(texts: Sequence[str]) -> tuple[Keys, NDArray[np.int64], NDArray[np.int64]]:
    """Return the key of each line of `texts` that is not blank, its number in its text, and the index of the text."""
    parts = [text.encode("utf-8") for text in texts]
    data = b"\n".join([*parts, _MARGIN])
    values = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(values == ord("\n"))[: -len(_MARGIN)]
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    text_ends = np.cumsum([len(part) + 1 for part in parts]) - 1
    index = np.searchsorted(text_ends, ends)
    first_line = np.searchsorted(starts, np.concatenate([[0], text_ends[:-1] + 1])) if parts else ends
    number = np.arange(len(ends)) - first_line[index]
    inner = np.flatnonzero((values != ord(" ")) & ((values < 9) | (values > 13)))
    inner = np.append(inner, len(values))
    first = inner[np.searchsorted(inner, starts)]
    has_text = first < ends
    last = inner[np.searchsorted(inner, ends[has_text]) - 1]
    return hashes_of_spans(data, first[has_text], last + 1), number[has_text], index[has_text]


def is_repeated(keys: Keys, documents: NDArray[np.int64], least: int) -> NDArray[np.bool_]:
    """Mark the pairs of key and document whose key occurs in at least `least` earlier documents."""
    order = np.lexsort((documents, keys))
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = keys[order][1:] != keys[order][:-1]
    is_new = is_first.copy()
    is_new[1:] |= documents[order][1:] != documents[order][:-1]
    number = np.cumsum(is_new)
    earlier = number - number[is_first][np.cumsum(is_first) - 1]
    repeated = np.empty(len(order), dtype=bool)
    repeated[order] = earlier >= least
    return repeated


def without(text: str, repeated: Keys) -> tuple[str, list[str]]:
    """Return the rest of `text` and the removed lines. Removal does not leave two blank lines together."""
    keys, numbers, _ = keys_of([text])
    removed_numbers = set(numbers[np.isin(keys, repeated)].tolist())
    left: list[str] = []
    removed: list[str] = []
    after_removed = False
    for number, line in enumerate(text.split("\n")):
        if number in removed_numbers:
            removed.append(line)
            after_removed = True
        elif line.strip():
            left.append(line)
            after_removed = False
        elif not after_removed or (left and left[-1].strip()):
            left.append(line)
    return "\n".join(left).strip("\n"), removed
