"""Unigram encoding in plain Python, for texts too small for compiled code to pay off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_UNSPELLED = -1


class WordEncoder:
    """Encodes one word at a time as the most likely sequence of pieces (Kudo 2018, section 3.2).

    `pieces` maps bytes to ids, and `scores` is by id. `unknown` is the score of a character that no piece spells; its
    bytes then get the ids `byte_ids`. Ties are broken as in the `tokenizers` library.
    """

    def __init__(
        self, pieces: Mapping[bytes, int], scores: Sequence[float], unknown: float, byte_ids: Sequence[int]
    ) -> None:
        self._pieces, self._scores, self._unknown, self._byte_ids = pieces, scores, unknown, byte_ids
        self._longest: dict[int, int] = {}  # by first byte
        for piece in pieces:
            self._longest[piece[0]] = max(self._longest.get(piece[0], 0), len(piece))

    def encode(self, word: bytes) -> list[int]:
        """Return the ids of `word`."""
        parts = self._best_parts(word)
        ids: list[int] = []
        end = len(word)
        while end > 0:
            start, id_ = parts[end]
            ids += [id_] if id_ != _UNSPELLED else [self._byte_ids[byte] for byte in word[start:end][::-1]]
            end = start
        return ids[::-1]

    def _best_parts(self, word: bytes) -> list[tuple[int, int]]:
        """Return, for each end of a part, the start and id of the best last part."""
        pieces, scores, size = self._pieces, self._scores, len(word)
        best = [float("-inf")] * (size + 1)
        parts = [(0, _UNSPELLED)] * (size + 1)
        best[0] = 0.0
        start = 0
        while start < size:
            behind = start + _character_size(word[start])
            is_spelled = False
            for end in range(start + 1, min(size, start + self._longest.get(word[start], 0)) + 1):
                id_ = pieces.get(word[start:end])
                if id_ is not None:
                    is_spelled |= end == behind
                    score = scores[id_] + best[start]
                    if score > best[end]:
                        best[end], parts[end] = score, (start, id_)
            if not is_spelled and self._unknown + best[start] > best[behind]:
                best[behind], parts[behind] = self._unknown + best[start], (start, _UNSPELLED)
            start = behind
        return parts


def _character_size(first: int) -> int:
    """Return the length in bytes of a character by its `first` byte."""
    return 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
