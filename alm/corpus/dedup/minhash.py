"""MinHash signatures: texts that share most of their word 5-grams very likely share the key of a band.

Broder, "On the resemblance and containment of documents" (1997), with the parameters of FineWeb (Penedo et al. 2024,
section 3): 14 bands of 8 rows. Two texts whose sets of 5-grams have the Jaccard similarity s agree in at least one
band with probability 1 - (1 - s^8)^14: 0.05 at s = 0.5, 0.56 at 0.7, 0.924 at 0.8, 0.9996 at 0.9.

Words are the runs of `\\w` in the lower-cased text. Nothing else is simplified: digits and accents stay. In a script
without spaces, phrases count as words. A text of fewer than 5 words is one shingle of all its words; a text without
words is identified by its own hash. Nothing depends on the process, the machine, or the other texts of a batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

BANDS = 14
ROWS = 8
SHINGLE_WORDS = 5

_BATCH_CHARACTERS = 1 << 16  # small enough that the arrays of a batch stay in a core's second-level cache
_SEED = 0x243F6A8885A308D3  # the first 64 bits of the fraction of pi
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, made odd
_FOREIGN_GAPS = re.compile(r"[^\w\x00-\x7f]+")
_ASCII_LETTERS = b"abcdefghijklmnopqrstuvwxyz"
_ASCII_WORDS = b"0123456789_" + _ASCII_LETTERS
_SPACE = ord(" ")

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]


def _scattered(values: Hashes) -> Hashes:
    """Apply the finaliser of SplitMix64 (Steele et al. 2014) in place.

    It is a bijection in which each input bit flips half of the output bits on average.
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values ^= values >> np.uint64(shift)
        values *= np.uint64(factor)
    values ^= values >> np.uint64(31)
    return values


def _constants(seed: int, count: int) -> Hashes:
    """Return pseudo-random odd numbers: outputs of SplitMix64."""
    steps = np.arange(1, count + 1, dtype=np.uint64)
    return _scattered(steps * _GOLDEN + np.uint64(seed)) | np.uint64(1)


_PLACES = _constants(_SEED, SHINGLE_WORDS)
# Odd, so that each multiplication permutes the 32-bit numbers: different shingle halves never collide in a row.
_MULTIPLIERS = (_constants(~_SEED & 0xFFFFFFFFFFFFFFFF, BANDS * ROWS) >> np.uint64(31)).astype(np.uint32) | np.uint32(1)
_TABLE = bytes(
    b if b >= 128 or b in _ASCII_WORDS else b + 32 if b + 32 in _ASCII_LETTERS else _SPACE for b in range(256)
)
_FIRST_BYTES = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)


def hashes_of_spans(data: bytes, starts: Indices, ends: Indices) -> Hashes:
    """Return a stable 64-bit hash of each of the spans `data[start:end]`, none of which may be empty.

    `data` must have at least 7 more bytes after the last span. Spans of up to 8 bytes without a NUL never collide.
    """
    if not len(starts):
        return np.empty(0, dtype=np.uint64)
    blocks = (ends - starts + 7) >> 3
    first = np.cumsum(blocks) - blocks
    number = np.arange(blocks.sum())
    at = np.repeat(starts - 8 * first, blocks) + 8 * number
    left = np.minimum(np.repeat(ends, blocks) - at, 8)
    eights = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))  # overlapping: the 8 bytes from each byte on
    values = eights[at] & _FIRST_BYTES[left]
    values += (number - np.repeat(first - 1, blocks)).view(np.uint64) * _GOLDEN
    found: Hashes = np.add.reduceat(_scattered(values), first)
    return found


class Signer:
    """Computes signatures. It has no state, so the order of the texts does not matter."""

    def bands(self, text: str) -> Hashes:
        """Return the keys of the 14 bands of `text`, shape (14,)."""
        found: Hashes = self.bands_of((text,))[0]
        return found

    def bands_of(self, texts: Sequence[str]) -> Hashes:
        """Return the keys of every text, shape (texts, 14): the same as one by one, but faster for short texts."""
        found = np.empty((len(texts), BANDS), dtype=np.uint64)
        for start, end in _batches(texts):
            if len(texts[start]) > _BATCH_CHARACTERS:
                found[start] = _keys(_minima_of_long(texts[start]))[0]
            else:
                found[start:end] = _keys(_minima_of_batch(texts[start:end]))
        return found


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the start and end of runs of texts that fit into a batch; a longer text is a run of its own."""
    start, characters = 0, 0
    for i, text in enumerate(texts):
        characters += len(text)
        if characters > _BATCH_CHARACTERS and i > start:
            yield start, i
            start, characters = i, len(text)
    if texts:
        yield start, len(texts)


def _minima_of_batch(texts: Sequence[str]) -> NDArray[np.uint32]:
    words, counts = _words(texts)
    starts = np.cumsum(np.maximum(counts, 1) + SHINGLE_WORDS - 1)
    starts = np.concatenate([[0], starts])
    padded = np.zeros(starts[-1] + 1, dtype=np.uint64)  # a gap after each text pads a short one to a shingle
    padded[np.arange(len(words)) + np.repeat(starts[:-1] - (np.cumsum(counts) - counts), counts)] = words
    for i in np.flatnonzero(counts == 0):
        padded[starts[i]] = _hash_of_text(texts[int(i)])
    return _minima(padded, starts[:-1], np.maximum(counts - SHINGLE_WORDS + 1, 1))


def _minima_of_long(text: str) -> NDArray[np.uint32]:
    """Compute the minima piece by piece, so that memory does not grow with the text."""
    minima = np.full((BANDS * ROWS, 1), 0xFFFFFFFF, dtype=np.uint32)
    carried, signed = np.empty(0, dtype=np.uint64), False
    for piece in _pieces(text):
        carried = np.concatenate([carried, _words([piece])[0]])
        if len(carried) >= SHINGLE_WORDS:
            np.minimum(minima, _minima_of_words(carried), out=minima)
            carried, signed = carried[1 - SHINGLE_WORDS :], True
    if signed:
        return minima
    return _minima_of_words(carried if len(carried) else np.array([_hash_of_text(text)], dtype=np.uint64))


def _minima_of_words(words: Hashes) -> NDArray[np.uint32]:
    padded = np.concatenate([words, np.zeros(SHINGLE_WORDS, dtype=np.uint64)])
    return _minima(padded, np.zeros(1, dtype=np.int64), np.array([max(len(words) - SHINGLE_WORDS + 1, 1)]))


def _pieces(text: str) -> Iterator[str]:
    """Cut `text` into pieces at spaces or newlines, or anywhere if a piece would have neither."""
    start = 0
    while start < len(text):
        end = start + _BATCH_CHARACTERS
        if end < len(text):
            space = max(text.rfind(" ", start + 1, end), text.rfind("\n", start + 1, end))
            end = space if space > 0 else end
        yield text[start:end]
        start = end


def _hash_of_text(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _words(texts: Sequence[str]) -> tuple[Hashes, Indices]:
    """Return the hashes of the words of all texts, and the number of words of each."""
    parts = [_simplified(text) for text in texts]
    data = (b" " + b" ".join(parts) + b" " * 8).translate(_TABLE)
    is_word = np.frombuffer(data, dtype=np.uint8) != _SPACE
    edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    offsets = np.cumsum([1, *(len(part) + 1 for part in parts)])
    return hashes_of_spans(data, starts, ends), np.diff(np.searchsorted(starts, offsets))


def _simplified(text: str) -> bytes:
    """Return UTF-8 in which only ASCII characters remain to be lower-cased, or to separate words."""
    return text.encode("ascii") if text.isascii() else _FOREIGN_GAPS.sub(" ", text.lower()).encode()


def _minima(words: Hashes, starts: Indices, counts: Indices) -> NDArray[np.uint32]:
    """Return the least value of each hash function over the `counts` shingles from each of `starts`: (112, texts).

    A function multiplies one half of a shingle's hash by an odd number, modulo 2^32. Rows use the low and the high
    half in turn: 32 bits a row are fast to compute, and all 64 must agree for two shingles to count as one.
    """
    shingles = _shingles(words)
    halves = shingles.astype(np.uint32), (shingles >> np.uint64(32)).astype(np.uint32)
    cuts = np.stack([starts, starts + counts], axis=1).ravel()
    product = np.empty_like(halves[0])
    minima = np.empty((BANDS * ROWS, len(starts)), dtype=np.uint32)
    for row, multiplier in enumerate(_MULTIPLIERS):
        np.multiply(halves[row % 2], multiplier, out=product)
        minima[row] = np.minimum.reduceat(product, cuts)[::2]  # every second segment is the gap between two texts
    return minima


def _shingles(words: Hashes) -> Hashes:
    """Return the hash of each run of 5 words."""
    count = len(words) - SHINGLE_WORDS + 1
    total = words[:count] * _PLACES[0]
    for i in range(1, SHINGLE_WORDS):
        total += words[i : i + count] * _PLACES[i]
    return _scattered(total)


def _keys(minima: NDArray[np.uint32]) -> Hashes:
    """Combine the 8 minima of each band into one number, shape (texts, 14)."""
    low, high = minima.reshape(BANDS, ROWS // 2, 2, -1).transpose(2, 1, 3, 0).astype(np.uint64)
    keys = np.zeros_like(low[0])
    for i in range(ROWS // 2):
        keys = _scattered((keys ^ (low[i] | high[i] << np.uint64(32))) + _GOLDEN)
    found: Hashes = keys
    return found
