"""Token choice for one row: its random numbers, and the counts of its own text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alm.errors import InputError
from alm.generation import sampling
from alm.generation.config import SamplingConfig


@dataclass(frozen=True)
class Choice:
    """A token, with its log-probability under the model alone (no temperature, no penalty) if requested.

    `alternatives` are the likeliest tokens, best first, with their log-probabilities.
    """

    id: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


class TokenSampler:
    """Chooses the tokens of one row, from scores (V,) on the CPU."""

    def __init__(
        self,
        config: SamplingConfig,
        prompt: Sequence[int],
        *,
        banned: Sequence[Sequence[int]] = (),
        alternatives: int | None = None,
    ) -> None:
        """Never complete a `banned` sequence; with `alternatives` (0 or more) choices have probabilities."""
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

    def choose(self, scores: Tensor) -> Choice:
        """Choose the next token. InputError if the scores are not finite, as after a training that diverged."""
        scores = scores.float()
        allowed = self._penalized(scores)
        if self._config.is_greedy:
            chosen = int(allowed.argmax())
            best = allowed[chosen]
        else:
            ids, left = sampling.candidates(allowed, self._config)
            best = left.max()
            chosen = int(ids[sampling.draw(left, self._generator)]) if best.isfinite() else -1
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
            scores = sampling.repetition_penalty(scores, self._seen, config.repetition_penalty)
        if config.presence_penalty or config.frequency_penalty:
            if self._counts is None:
                self._counts = _counted(self.generated, len(scores))
            presence, frequency = config.presence_penalty, config.frequency_penalty
            scores = sampling.presence_and_frequency(scores, self._counts, presence=presence, frequency=frequency)
        return sampling.ban(scores, self.ids[-self._longest :], self._banned) if self._banned else scores

    def _described(self, scores: Tensor, chosen: int) -> Choice:
        if self._alternatives is None:
            return Choice(chosen)
        logprobs = scores.double().log_softmax(-1)
        best = logprobs.topk(min(self._alternatives, len(scores)))
        alternatives = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return Choice(chosen, float(logprobs[chosen]), alternatives)


def _counted(ids: Sequence[int], size: int) -> Tensor:
    """Count each of `size` ids in `ids`; a prompt may have ids that the tokenizer does not have."""
    known = torch.tensor([token_id for token_id in ids if token_id < size], dtype=torch.int64)
    return torch.bincount(known, minlength=size)


def _nothing_left(scores: Tensor) -> InputError:
    if scores.isnan().any() or not scores.max().isfinite():
        return InputError("the model's scores are not finite: its training diverged", hint="use an earlier checkpoint")
    return InputError("every token is banned", hint="give fewer `--bad-words`")
