"""Sampling of the next token from scores: pure functions, with the meaning and the order of `transformers`.

Each takes scores (..., V) and returns new ones, in which a token that cannot be chosen has -inf:
`repetition_penalty`, `presence_and_frequency`, `ban`, `temperature`, `top_k`, `top_p`, `min_p`; `draw` ends the chain.
V vocabulary, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from alm.generation.config import SamplingConfig


def repetition_penalty(scores: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Divide the scores of tokens that were `seen` (..., V) bool, in prompt or text, by `penalty`.

    Negative scores are multiplied, so that they fall too.
    Keskar et al. 2019 (arXiv:1909.05858), section 4.1, with the sign of `RepetitionPenaltyLogitsProcessor`.
    """
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def presence_and_frequency(scores: Tensor, counts: Tensor, *, presence: float, frequency: float) -> Tensor:
    """Subtract `presence` where `counts` (..., V) of generated tokens are above 0, and `frequency` x the count.

    As in OpenAI's interface, which has both; `transformers` has neither.
    """
    return scores - presence * (counts > 0) - frequency * counts


def ban(scores: Tensor, ids: Sequence[int], banned: Sequence[Sequence[int]]) -> Tensor:
    """Exclude tokens (V,) that would complete a `banned` sequence after `ids`, as `NoBadWordsLogitsProcessor` does."""
    text = tuple(ids)
    ends = [last for *before, last in banned if not before or text[-len(before) :] == tuple(before)]
    return scores if not ends else scores.index_fill(-1, torch.tensor(ends), -torch.inf)


def temperature(scores: Tensor, value: float) -> Tensor:
    """Divide the scores by `value`, which is above 0."""
    return scores / value


def top_k(scores: Tensor, count: int) -> Tensor:
    """Keep the `count` highest scores, and those that tie with the last of them."""
    last = scores.topk(min(count, scores.shape[-1])).values[..., -1:]
    return scores.masked_fill(scores < last, -torch.inf)


def top_p(scores: Tensor, share: float) -> Tensor:
    """Keep the smallest set of highest scores whose probabilities add up to `share`; at least one.

    Holtzman et al. 2020 (arXiv:1904.09751), section 3.1.
    """
    rising, order = scores.sort(dim=-1)
    removed = rising.softmax(-1).cumsum(-1) <= 1 - share
    removed[..., -1:] = False
    return scores.masked_fill(removed.scatter(-1, order, removed), -torch.inf)


def min_p(scores: Tensor, share: float) -> Tensor:
    """Keep scores whose probability is at least `share` of the highest.

    Nguyen et al. 2024 (arXiv:2407.01082), section 3.
    """
    shares = scores.softmax(-1)
    removed = shares < share * shares.amax(-1, keepdim=True)
    return scores.masked_fill(removed, -torch.inf)


def candidates(scores: Tensor, config: SamplingConfig) -> tuple[Tensor, Tensor]:
    """Return ids (C,) in rising order and their remaining scores, divided by the temperature; not for greedy choices.

    The tokens that `top_k` keeps are gathered before `top_p` sorts them: that takes a fraction of the time, and differs
    in the last bit of a sum at most.
    """
    scores = temperature(scores, config.temperature)
    ids = _highest(scores, config.top_k)
    left = scores[ids]
    if config.top_p < 1:
        left = top_p(left, config.top_p)
    if config.min_p > 0:
        left = min_p(left, config.min_p)
    return ids, left


def _highest(scores: Tensor, count: int) -> Tensor:
    """Return the ids of the `count` highest scores (V,), and of those that tie with the last, in rising order."""
    if count >= len(scores):
        return torch.arange(len(scores))
    found = scores.topk(count + 1)
    last, following = found.values[-2:].tolist()
    if last == following:
        ids: Tensor = (scores >= last).nonzero().squeeze(1)
    else:
        ids = found.indices[:-1].sort().values
    return ids


def draw(scores: Tensor, generator: torch.Generator) -> int:
    """Draw an index into scores (C,) by their softmax: one random number, looked up in the cumulative sum.

    In fp64 and on the CPU, so that a seed gives the same text on every device.
    """
    # Not torch.multinomial: its exponential numbers for 32,000 tokens take 0.87 ms, an eighth of a token's time
    # (docs/benchmarks.md).
    sums = scores.double().softmax(-1).cumsum(-1)
    number = torch.rand((), generator=generator, dtype=torch.float64) * sums[-1]
    return int(torch.searchsorted(sums, number, right=True))
