"""What a text is worth that a run sees many times, and how strongly to regularise the run.

The strengths were measured here on texts of 0.05 to 0.8 MB with a model of a million parameters (docs/log.md, "Text
that is seen many times").
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from alm.training.config import RunConfig

# Muennighoff et al. 2023, "Scaling Data-Constrained Language Models", arXiv:2305.16264, equation 5: the second pass is
# almost as good as new text, and the value of a pass falls by the factor e within this many.
_PASSES_OF_VALUE = 15.4
# Up to here a text that is seen again is almost as good as new text (section 5 there).
FEW_PASSES = 4
# No more passes were measured, and from 17 to 52 of them the score fell by 2% alone.
MOST_PASSES = 60
# From few passes to many: (passes, weight decay, dropout). Values between them are interpolated by the logarithm.
_MEASURED = ((3.0, 0.1, 0.0), (10.0, 0.5, 0.2), (17.0, 1.0, 0.2), (50.0, 1.5, 0.4))


@dataclass(frozen=True)
class Regularisation:
    """How strongly a run is kept from learning its text by heart."""

    weight_decay: float
    dropout: float

    @property
    def overrides(self) -> tuple[str, ...]:
        """The settings, as for `--set`."""
        return (f"optim.weight_decay={self.weight_decay:g}", f"model.dropout={self.dropout:g}")


def regularisation(passes: float) -> Regularisation:
    """Return what suits a run that sees its text `passes` times, in round numbers."""
    position = math.log(max(passes, _MEASURED[0][0]))
    for (low, *before), (high, *after) in itertools.pairwise(_MEASURED):
        if passes <= high:
            share = (position - math.log(low)) / math.log(high / low)
            decay, dropout = (a + share * (b - a) for a, b in zip(before, after, strict=True))
            return Regularisation(round(decay, 1), round(dropout, 2))
    return Regularisation(*_MEASURED[-1][1:])


def is_too_weak(config: RunConfig, passes: float) -> bool:
    """Return whether a run that sees its text `passes` times has less than half of the weight decay that suits it."""
    decay = getattr(config.optim, "weight_decay", math.inf)  # a third-party optimizer may have none
    return passes > FEW_PASSES and bool(decay < regularisation(passes).weight_decay / 2)


def effective_tokens(unique: float, passes: float) -> float:
    """Return how many new tokens would teach as much as `unique` tokens seen `passes` times."""
    if passes <= 1:
        return unique * passes
    return unique * (1 + _PASSES_OF_VALUE * (1 - math.exp(-(passes - 1) / _PASSES_OF_VALUE)))
