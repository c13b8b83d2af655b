"""Fits a Unigram model to text by expectation maximization, with pruning (Kudo 2018, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alm.events import Listener, Progressed
from alm.tokenizers.models._unigram_seeds import Floats, Pieces, Text, seed

_SEEDS_PER_PIECE = 30
_MOST_SEEDS = 1 << 21
_SHRINKING = 0.75
_ROOM = 1.1
"""Pruning in steps stops at this multiple of the wanted pieces. The last cut, by loss, is made at once."""
_PASSES = 2
_LAST_PASSES = 2
_LEAST_EXPECTED = 1.0
"""Twice the threshold of sentencepiece, which makes held-out text more likely, by up to one percent."""


@dataclass(frozen=True)
class Fitted:
    """Pieces, the alphabet first, with the natural logarithms of their probabilities."""

    pieces: list[str]
    scores: Floats


def fit(text: Text, *, size: int, longest: int, on_event: Listener) -> Fitted:
    """Fit `size` pieces of at most `longest` characters that make the text likely; fewer if it has no more."""
    pieces = seed(text, most=min(_MOST_SEEDS, _SEEDS_PER_PIECE * size), longest=longest)
    fitting = Fitting(pieces, longest)
    begun, room = len(pieces.lengths), int(size * _ROOM)

    def step() -> None:
        fitting.step()
        done, total = begun - len(pieces.lengths), max(0, begun - size)
        on_event(Progressed("fitting pieces", min(done, total), total, "pieces dropped"))

    for _ in range(_PASSES):
        step()
    while len(pieces.lengths) > room:
        fitting.prune(max(room, int(len(pieces.lengths) * _SHRINKING)))
        for _ in range(_PASSES):
            step()
    fitting.prune(size)
    for _ in range(_LAST_PASSES):
        fitting.step(is_last=True)
    return Fitted(pieces.spelled(), fitting.scores)


class Fitting:
    """Pieces and their scores during fitting."""

    def __init__(self, pieces: Pieces, longest: int) -> None:
        self.pieces = pieces
        self.frequencies = np.maximum(pieces.frequencies * pieces.lengths, _LEAST_EXPECTED)
        self.scores = np.log(self.frequencies / self.frequencies.sum())
        self._longest = longest
        room = int(pieces.text.lengths.max(initial=0)) + 1
        self._sums = np.zeros(room), np.zeros(room), np.zeros(room, dtype=np.int32), np.zeros(room)

    def step(self, *, is_last: bool = False) -> float:
        """Do one step of expectation maximization. Return the log-likelihood of the text before it.

        Pieces with an expected count below `_LEAST_EXPECTED` are dropped. The maximization is variational Bayes, which
        lowers the scores of rare pieces (Liang and Klein 2007). With `is_last`, it is plain and keeps all pieces.
        """
        likelihood = self.expect()
        pieces = self.pieces
        is_kept = self.frequencies >= _LEAST_EXPECTED
        is_kept[: pieces.characters] = True
        self.frequencies = np.maximum(self.frequencies, _LEAST_EXPECTED)
        if not is_last:
            self._keep(is_kept)
        total = self.frequencies.sum(keepdims=True)
        weigh = np.log if is_last else digamma
        self.scores = weigh(self.frequencies) - weigh(total)
        return likelihood

    def expect(self) -> float:
        """Set the frequencies to the expected counts. Return the log-likelihood of the text."""
        from alm.tokenizers._kernels import unigram_train as kernels

        pieces, text = self.pieces, self.pieces.text
        self.frequencies = np.zeros(len(self.scores))
        likelihood: float = kernels.expect(
            text.starts, text.lengths, text.counts, pieces.begins, pieces.matches, np.exp(self.scores), self._longest,
            *self._sums, self.frequencies,
        )  # fmt: skip
        return likelihood

    def prune(self, size: int) -> None:
        """Keep the `size` pieces whose removal would cost the most likelihood, and always the alphabet."""
        lost = self.losses()
        is_kept = np.zeros(len(lost), dtype=np.bool_)
        is_kept[np.argsort(-lost, kind="stable")[: max(size, self.pieces.characters)]] = True
        self._keep(is_kept & (lost >= 0))

    def losses(self) -> Floats:
        """Estimate the drop in log-likelihood without each piece; 0 or less for a piece of no use."""
        from alm.tokenizers._kernels import unigram_train as kernels

        pieces = self.pieces
        lost = np.empty(len(self.scores))
        best, via = np.zeros(self._longest + 1), np.zeros(self._longest + 1, dtype=np.int64)
        kernels.losses(
            pieces.places, pieces.lengths, pieces.begins, pieces.matches, self.scores, self.frequencies,
            self.frequencies.sum(), pieces.characters, best, via, lost,
        )  # fmt: skip
        return lost

    def _keep(self, is_kept: np.ndarray) -> None:
        if not is_kept.all():
            self.pieces.keep(is_kept)
            self.frequencies, self.scores = self.frequencies[is_kept], self.scores[is_kept]


def digamma(values: Floats) -> Floats:
    """Return the derivative of the logarithm of the gamma function, for positive values.

    Recurrences (Abramowitz and Stegun 1964, 6.3.5) shift the values up to where the asymptotic series (6.3.18) is exact
    to the last digits.
    """
    shifted = np.asarray(values, dtype=np.float64).copy()
    below = np.zeros_like(shifted)
    for _ in range(8):
        is_small = shifted < 8
        below[is_small] -= 1 / shifted[is_small]
        shifted[is_small] += 1
    inverse = 1 / shifted
    square = inverse * inverse
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square * (1 / 240 - square / 132))))
    return below + np.log(shifted) - inverse / 2 - series
