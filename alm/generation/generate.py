"""From a prompt to text, token by token. B batch (always 1 here), T tokens, V vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from alm.errors import InputError
from alm.generation.sampling import SamplingConfig, sample
from alm.model.config import ModelConfig
from alm.model.kv_cache import KVCache
from alm.model.transformer import Transformer


class Decoder(Protocol):
    """Turns ids into text piece by piece; an unfinished character waits inside."""

    def feed(self, token_id: int, /) -> str:
        """The text that is complete with this id, perhaps none."""
        ...

    def finish(self) -> str:
        """What is left."""
        ...


def generate(
    model: Transformer,
    prompt_ids: Sequence[int],
    *,
    sampling: SamplingConfig,
    end_of_text_id: int,
    vocab_size: int | None = None,
) -> Iterator[int]:
    """The ids that follow the prompt, one by one: at most `max_tokens`, until the end of the text or of the context.

    Only ids below `vocab_size` are chosen: a model may have more than its tokenizer; absent means all.
    An empty prompt starts from `end_of_text_id`, which is itself never yielded. The model is put in eval mode. Raises
    InputError at once, not at the first id, when the prompt leaves no room for an answer.
    """
    prompt = list(prompt_ids) or [end_of_text_id]
    check_prompt(prompt, model.config)
    model.eval()
    known = vocab_size or model.config.known_vocab_size
    most = min(sampling.max_tokens, model.config.max_position_embeddings - len(prompt))
    return _generate(model, prompt, sampling, end_of_text_id, most, known)


def check_prompt(prompt_ids: Sequence[int], config: ModelConfig) -> None:
    """Raise InputError when a model of this shape cannot continue the prompt."""
    context = config.max_position_embeddings
    if len(prompt_ids) >= context:
        raise InputError(
            f"the prompt has {len(prompt_ids)} tokens, and the model's context holds {context}, answer included",
            hint=f"shorten the prompt to at most {context - 1} tokens",
        )
    _check_ids(prompt_ids, config.known_vocab_size)


def _check_ids(prompt: Sequence[int], vocab_size: int) -> None:
    unknown = next((token_id for token_id in prompt if not 0 <= token_id < vocab_size), None)
    if unknown is not None:
        raise InputError(
            f"the prompt has the token id {unknown}, and the model's ids are 0 to {vocab_size - 1}",
            hint="use the tokenizer.json that lies beside the checkpoint",
        )


def _generate(
    model: Transformer, prompt: list[int], sampling: SamplingConfig, end_of_text_id: int, most: int, known: int
) -> Iterator[int]:
    generator = torch.Generator().manual_seed(sampling.seed)
    cache = model.new_cache(max_tokens=len(prompt) + most)
    device = model.head_weight.device
    ids = torch.tensor([prompt], device=device)
    for _ in range(most):
        logits = _next_logits(model, ids, cache)[:known]
        chosen = sample(logits, temperature=sampling.temperature, top_k=sampling.top_k, generator=generator)
        if chosen == end_of_text_id:
            return
        yield chosen
        ids = torch.tensor([[chosen]], device=device)


# Entered anew for each token: a mode held across a `yield` would leak into the caller's code.
@torch.inference_mode()
def _next_logits(model: Transformer, ids: Tensor, cache: KVCache) -> Tensor:
    """Scores (V,) of the token after `ids` (1, T)."""
    return model.logits(model(ids, cache)[0, -1])


def stream_text(ids: Iterable[int], decoder: Decoder) -> Iterator[str]:
    """The text of `ids` as it becomes complete; no piece is empty."""
    for token_id in ids:
        if piece := decoder.feed(token_id):
            yield piece
    if rest := decoder.finish():
        yield rest
