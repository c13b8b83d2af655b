"""From scores to the next token. V vocabulary, C candidates."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from alm.config.base import Config
from alm.errors import InputError


class SamplingConfig(Config):
    """How the next token is chosen."""

    temperature: float = Field(
        0.8, ge=0, description="Divides the scores before sampling: below 1 is safer, above 1 is wilder, 0 is greedy."
    )
    top_k: int = Field(40, ge=0, description="Only this many of the likeliest tokens can be chosen; 0 is greedy.")
    max_tokens: int = Field(50, ge=0, description="The most tokens to generate.")
    seed: int = Field(1337, ge=0, le=2**63 - 1, description="Seed of the random choices.")


def sample(logits: Tensor, *, temperature: float, top_k: int, generator: torch.Generator) -> int:
    """One id, chosen by scores (V,): greedy when `temperature` or `top_k` is 0, else among the `top_k` likeliest.

    Ties at the edge of the `top_k` are all kept, as in Hugging Face's `TopKLogitsWarper`. The choice is made on the
    CPU, where `generator` lives, so that a seed means the same on every device.
    """
    if temperature == 0 or top_k == 0:
        return int(logits.argmax())
    ids, probabilities = candidates(logits, temperature=temperature, top_k=top_k)
    return int(ids[torch.multinomial(probabilities, 1, generator=generator)])


def candidates(logits: Tensor, *, temperature: float, top_k: int) -> tuple[Tensor, Tensor]:
    """Ids (C,) in rising order and their probabilities (C,), of scores (V,); `temperature` and `top_k` above 0.

    InputError when a score is not a number, as after a training that diverged.
    """
    scores = logits.cpu()
    best = scores.topk(min(top_k, len(scores))).values
    if not best[0].isfinite():
        raise InputError("the model's scores are not finite: its training diverged", hint="use an earlier checkpoint")
    ids = (scores >= best[-1]).nonzero().squeeze(1)
    # In fp64 and shifted: a tiny temperature would otherwise become 0, or its quotients infinite.
    return ids, torch.softmax((scores[ids] - best[0]).double() / temperature, dim=0)
