"""Confidence interval for bits per byte, from the sums of its rows.

R rows, G groups of neighbouring rows.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
# Neighbouring rows often hold parts of one document, so they are not independent; groups of them nearly are. This many
# groups are enough to estimate their spread.
GROUPS = 40
FEWEST_GROUPS = 8


def margin(nats: NDArray[np.float64], sizes: NDArray[np.int64]) -> float | None:
    """Return half the width of the interval around sum(nats) / sum(sizes) / ln 2, in bits per byte.

    `nats` (R,) and `sizes` (R,), in bytes, are sums over each row, in the order of the stream. The ratio of two sums is
    linearised and its variance taken between groups of rows (Cochran 1977, "Sampling Techniques", section 6.4, without
    the finite population correction: the question is how another text of the same kind would score), and Student's t
    gives the width. It holds as long as documents are not much longer than a group. Returns None if there are too few
    rows for that, or no text in them.
    """
    groups = min(len(nats), GROUPS)
    total = int(sizes.sum())
    if groups < FEWEST_GROUPS or not total:
        return None
    firsts = np.arange(groups) * len(nats) // groups
    group_nats, group_sizes = np.add.reduceat(nats, firsts), np.add.reduceat(sizes, firsts)
    excess = group_nats - group_sizes * (nats.sum() / total)  # (G,), adds up to 0
    variance = groups / (groups - 1) * float(np.square(excess).sum()) / total**2
    return student_t(groups - 1) * math.sqrt(variance) / math.log(2)


def student_t(degrees: int, *, confidence: float = CONFIDENCE) -> float:
    """Return Student's t of a two-sided interval: Abramowitz and Stegun 26.7.5, within 0.002 from 7 degrees on."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3
