"""Unigram encoding in compiled code: the most likely spelling of a word in pieces (Viterbi)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from alm.tokenizers._kernels.compiling import inlined, kernel
from alm.tokenizers._kernels.memory import MOST_BYTES, Memory, copy_ids, ends_of, recalled, remember
from alm.tokenizers._kernels.text import ODD, PATTERN_CODES, classes, mixed, word_end
from alm.tokenizers.model import Bounds, Bytes, Ids

_TEXT_PER_CALL = 1 << 22
_FIRST_SCRATCH = 1 << 12

_DONE, _OUT_FULL, _MEMORY_FULL, _SCRATCH_FULL = range(4)
_TEXT, _AT, _POSITION, _NEEDED = range(4)


@inlined
def slot_of(edges, node, byte):
    """Return the place in `edges` of the step from `node` by `byte`, or the empty slot where it belongs.

    A slot is two integers: `(node << 8 | byte) + 1`, 0 if empty; and the next node (high 32 bits) with the id plus 1 of
    the piece that ends there (low 32 bits), 0 if none does.
    """
    step = (np.int64(node) << 8 | np.int64(byte)) + 1
    place = (np.int64(mixed(np.uint64(step) * ODD)) & ((edges.size >> 1) - 1)) << 1
    while edges[place] != step and edges[place] != 0:
        place = (place + 2) & (edges.size - 1)
    return place


@kernel
def fill_edges(data, bounds, ids, edges):
    """Enter each piece `data[bounds[i]:bounds[i + 1]]` with its id. Node 0 is the root."""
    nodes = 1
    for piece in range(ids.size):
        node, place = np.int64(0), np.int64(0)
        for at in range(bounds[piece], bounds[piece + 1]):
            place = slot_of(edges, node, data[at])
            if edges[place] == 0:
                edges[place] = (node << 8 | np.int64(data[at])) + 1
                edges[place + 1] = np.int64(nodes) << 32
                nodes += 1
            node = edges[place + 1] >> 32
        edges[place + 1] |= np.int64(ids[piece]) + 1


@kernel
def best_spelling(data, start, length, edges, scores, unknown, byte_ids, best, via, out, position):
    """Write the ids of one word. Return the position after them.

    The order of additions and comparisons is that of `Unigram::encode_optimized` in the `tokenizers` library, so that
    ties are broken in the same way. `via` holds the length in bytes of the last piece (high 32 bits) and its id, -1 for
    a character that no piece spells.
    """
    best[: length + 1] = -np.inf
    best[0] = 0.0
    at = 0
    while at < length:
        byte = data[start + at]
        size = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        here, is_spelled, node = best[at], False, np.int64(0)
        for end in range(at + 1, length + 1):
            place = slot_of(edges, node, data[start + end - 1])
            if edges[place] == 0:
                break
            found = edges[place + 1]
            node, id_ = found >> 32, (found & 0xFFFFFFFF) - 1
            if id_ >= 0:
                score = scores[id_] + here
                if score > best[end]:
                    best[end], via[end] = score, np.int64(end - at) << 32 | id_
                if end - at == size:
                    is_spelled = True
        if not is_spelled and unknown + here > best[at + size]:
            best[at + size], via[at + size] = unknown + here, np.int64(size) << 32 | 0xFFFFFFFF
        at += size
    return write_back(data, start, length, via, byte_ids, out, position)


@inlined
def write_back(data, start, length, via, byte_ids, out, position):
    """Write the ids along `via` from the end, then reverse them."""
    last, end = position, length
    while end > 0:
        size, id_ = via[end] >> 32, via[end] & 0xFFFFFFFF
        if id_ == 0xFFFFFFFF:
            for i in range(1, size + 1):
                out[last] = byte_ids[data[start + end - i]]
                last += 1
        else:
            out[last] = np.int32(id_)
            last += 1
        end -= size
    for i in range((last - position) >> 1):
        out[position + i], out[last - 1 - i] = out[last - 1 - i], out[position + i]
    return last


@kernel
def encode_texts(
    data, bounds, classes, pattern, byte_ids, edges, scores, unknown,
    table, pool, ids, memory_state, best, via, out, offsets, state
):  # fmt: skip
    """Encode texts until all are done or an array is full. Return which."""
    text, at, position = state[_TEXT], state[_AT], state[_POSITION]
    outcome, met = _DONE, memory_state[0]
    # Return regularly, also in the middle of a text, so that the caller can grow the cache of words.
    pause = at + _TEXT_PER_CALL
    while text < bounds.size - 1:
        stop = bounds[text + 1]
        while at < stop:
            end = word_end(data, at, stop, classes, pattern)
            length = end - at
            if position + length > out.size:
                outcome = _OUT_FULL
            elif at > pause or memory_state[0] > 2 * met + 1000:
                outcome = _MEMORY_FULL
            elif length >= best.size:
                outcome = _SCRATCH_FULL
            if outcome != _DONE:
                state[_NEEDED] = length
                break
            first, last = ends_of(data, at, length)
            place = np.int64(-1)
            if length <= MOST_BYTES:
                place = recalled(table, pool, data, at, length, first, last)
                entry = table[place + 2]
                if entry != 0:
                    position = copy_ids(entry, ids, out, position)
                    at = end
                    continue
            after = best_spelling(data, at, length, edges, scores, unknown, byte_ids, best, via, out, position)
            if place >= 0:
                count = after - position
                remember(table, pool, ids, memory_state, place, first, last, data, at, length, out, position, count)
            position, at = after, end
        if outcome != _DONE:
            break
        text += 1
        offsets[text] = position
    state[_TEXT], state[_AT], state[_POSITION] = text, at, position
    return outcome


class Encoder:
    """Encodes texts with the pieces of one model. It caches words, so each thread has its own.

    `pieces` are bytes with their ids, and `scores` is by id. `unknown` is the score of a character that no piece
    spells; its bytes then get the ids `byte_ids`.
    """

    def __init__(
        self,
        pieces: Sequence[tuple[bytes, int]],
        scores: npt.NDArray[np.float64],
        unknown: float,
        byte_ids: npt.NDArray[np.int32],
        pattern: str,
    ) -> None:
        self._pattern, self._classes = PATTERN_CODES[pattern], classes(pattern)
        self._scores, self._unknown, self._byte_ids = scores, unknown, byte_ids
        self._edges = _edges(pieces)
        self._memory = Memory()
        self._scratch(_FIRST_SCRATCH)

    def encode(self, data: Bytes, bounds: Bounds) -> tuple[Ids, Bounds]:
        """Return the ids of the texts `data[bounds[i]:bounds[i + 1]]`, and the offsets of each text's ids."""
        out = np.empty(int(bounds[-1] - bounds[0]) // 3 + 1024, dtype=np.int32)
        offsets = np.zeros(len(bounds), dtype=np.int64)
        state = np.array([0, bounds[0], 0, 0], dtype=np.int64)
        memory = self._memory
        while outcome := encode_texts(
            data, bounds, self._classes, self._pattern, self._byte_ids, self._edges, self._scores, self._unknown,
            memory.table, memory.pool, memory.ids, memory.state, self._best, self._via, out, offsets, state,
        ):  # fmt: skip
            if outcome == _OUT_FULL:
                longer = np.empty(len(out) * 3 // 2 + int(state[_NEEDED]), dtype=np.int32)
                longer[: state[_POSITION]] = out[: state[_POSITION]]
                out = longer
            elif outcome == _SCRATCH_FULL:
                self._scratch(int(state[_NEEDED]) + 1)
            memory.grow()
        return out[: state[_POSITION]], offsets

    def _scratch(self, size: int) -> None:
        self._best = np.zeros(size)
        self._via = np.zeros(size, dtype=np.int64)


def _edges(pieces: Sequence[tuple[bytes, int]]) -> npt.NDArray[np.int64]:
    data = np.frombuffer(b"".join(piece for piece, _ in pieces) + bytes(1), dtype=np.uint8)
    bounds = np.concatenate([[0], np.cumsum([len(piece) for piece, _ in pieces], dtype=np.int64)])
    ids = np.array([id_ for _, id_ in pieces], dtype=np.int32)
    edges = np.zeros(2 << max(4, (2 * len(data)).bit_length()), dtype=np.int64)
    fill_edges(data, bounds, ids, edges)
    return edges
