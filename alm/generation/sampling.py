"""Sampling of the next token from scores: `TokenSampler`, then the pure functions that it applies.

Each function takes scores (..., V) and returns new ones, in which a token that cannot be chosen has -inf, with the
meaning and the order of `transformers`: `repetition_penalty`, `presence_and_frequency`, `ban`, `temperature`, `top_k`,
`top_p`, `min_p`; `draw` ends the chain. V vocabulary, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alm.errors import InputError
from alm.generation.config import SamplingConfig


@dataclass(frozen=True)
class SampledToken:
    """A token, with its log-probability under the model alone (no temperature, no penalty) if requested.

    `alternatives` are the likeliest tokens, best first, with their log-probabilities.
    """

    id: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


class TokenSampler:
    """Chooses the tokens of one row, from scores (V,) on the CPU: it keeps the row's random numbers and counts."""

    def __init__(
        self,
        config: SamplingConfig,
        prompt: Sequence[int],
        *,
        banned: Sequence[Sequence[int]] = (),
        alternatives: int | None = None,
    ) -> None:
        """Never complete a `banned` sequence; with `alternatives` (0 or more) tokens have probabilities."""
        self._config, self._banned, self._alternatives = config, banned, alternatives
        self._longest = max(map(len, banned), default=0)
        self._prompt_length = len(prompt)
        self.ids = list(prompt)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._seen: Tensor | None = None  # (V,) bool: tokens of prompt and text
        self._counts: Tensor | None = None  # (V,) how often each was generated

    @property
    def generated(self) -> list[int]:
        """The tokens chosen so far."""
        return self.ids[self._prompt_length :]

    def choose(self, scores: Tensor) -> SampledToken:
        """Choose the next token. InputError if the scores are not finite, as after a training that diverged."""
        scores = scores.float()
        allowed = self._penalized(scores)
        if self._config.is_greedy:
            chosen = int(allowed.argmax())
            best = allowed[chosen]
        else:
            ids, left = candidates(allowed, self._config)
            best = left.max()
            chosen = int(ids[draw(left, self._generator)]) if best.isfinite() else -1
        if not best.isfinite():
            raise _nothing_left(scores)
        self._remember(chosen)
        return self._described(scores, chosen)

    def _remember(self, chosen: int) -> None:
        self.ids.append(chosen)
        if self._seen is not None:
            self._seen[chosen] = True
        if self._counts is not None:
            self._counts[chosen] += 1

    def _penalized(self, scores: Tensor) -> Tensor:
        config = self._config
        if config.repetition_penalty != 1:
            if self._seen is None:
                self._seen = _counted(self.ids, len(scores)) > 0
            scores = repetition_penalty(scores, self._seen, config.repetition_penalty)
        if config.presence_penalty or config.frequency_penalty:
            if self._counts is None:
                self._counts = _counted(self.generated, len(scores))
            presence, frequency = config.presence_penalty, config.frequency_penalty
            scores = presence_and_frequency(scores, self._counts, presence=presence, frequency=frequency)
        return ban(scores, self.ids[-self._longest :], self._banned) if self._banned else scores

    def _described(self, scores: Tensor, chosen: int) -> SampledToken:
        if self._alternatives is None:
            return SampledToken(chosen)
        logprobs = scores.double().log_softmax(-1)
        best = logprobs.topk(min(self._alternatives, len(scores)))
        alternatives = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return SampledToken(chosen, float(logprobs[chosen]), alternatives)


def _counted(ids: Sequence[int], size: int) -> Tensor:
    """Count each of `size` ids in `ids`; a prompt may have ids that the tokenizer does not have."""
    known = torch.tensor([token_id for token_id in ids if token_id < size], dtype=torch.int64)
    return torch.bincount(known, minlength=size)


def _nothing_left(scores: Tensor) -> InputError:
    if scores.isnan().any() or not scores.max().isfinite():
        return InputError("the model's scores are not finite: its training diverged", hint="use an earlier checkpoint")
    return InputError("every token is banned", hint="give fewer `--bad-words`")


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
