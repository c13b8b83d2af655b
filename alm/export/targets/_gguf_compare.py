"""What llama.cpp makes of a GGUF file, beside what this alm makes of the numbers in it.

The two get the same numbers, so that what is left are llama.cpp's own roundings: an f32 file's products are summed in
another order; to multiply with f16 it rounds the other factor to f16 as well, and with q8_0 to 8 bits.

V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from alm.artifacts import Comparison
from alm.export import compare as questions
from alm.export.held_out import held_out
from alm.export.source import Source
from alm.export.targets._gguf_model import Dtype, read_weights
from alm.export.targets._llama_cpp import LlamaCpp, serving, tool
from alm.model.transformer import Transformer
from alm.tokenizers.special import TURN_END


@dataclass(frozen=True)
class Bars:
    """The most that may differ; None where it is told alone.

    In nats ln p of any token, and the distribution as a whole; and tokens of greedy text, where two count as equally
    likely that differ by no more than twice the share `tie` of the largest logit.
    """

    log_probability: float | None
    divergence: float
    tie: float
    greedy: int | None = 0


BARS: dict[Dtype, Bars] = {
    # Seen in small trained models: 3e-5 in ln p and 1e-5 in divergence.
    "f32": Bars(log_probability=1e-3, divergence=1e-4, tie=questions.LOGITS_BAR),
    # Seen: 8e-3 and 1e-5; a wrong order of rows makes 0.6 in ln p. A number of f16 is off by 1 in 4,096 at most.
    "f16": Bars(log_probability=0.05, divergence=1e-3, tie=2e-3),
    # Seen: 2e-3 in divergence; 0.4 in ln p, of tokens that hardly ever come. A number is off by 1 in 254 of its block's
    # largest, which is no tie any more where a model is undecided.
    "q8_0": Bars(log_probability=None, divergence=0.05, tie=2e-2, greedy=None),
}


def comparisons(source: Source, path: Path, dtype: Dtype) -> list[Comparison]:
    """Ids of hard texts, probabilities of what comes next, greedy text, and what rounding costs."""
    network, bars, name = source.network, BARS[dtype], tool()
    if dtype != "f32":
        network = source.network_of(read_weights(path, source.model, source.weights))
    with serving(path, context=source.model.max_position_embeddings) as llama:
        found = [
            questions.ids(source, name, llama.encode),
            *_probabilities(source, network, llama, bars),
            _greedy(source, network, llama, bars),
        ]
    text = held_out(source)
    return found if text is None else [*found, *questions.rounding(text, source.network, network, dtype)]


def _probabilities(source: Source, network: Transformer, llama: LlamaCpp, bars: Bars) -> list[Comparison]:
    prompts, end, size = questions.prompts(source), source.tokenizer.end_of_text_id, source.model.known_vocab_size
    farthest = divergence = 0.0
    for prompt in prompts:
        ours = torch.log_softmax(questions.logits_of(network, prompt)[-1].double(), -1)  # (V,)
        theirs = llama.log_probabilities(prompt, end=end, vocab_size=size).double()
        farthest = max(farthest, _finite((ours - theirs).abs().max()))
        divergence = max(divergence, _finite((ours.exp() * (ours - theirs)).sum().abs()))
    measured = (
        ("ln p of every token", farthest, bars.log_probability),
        ("divergence of probabilities", divergence, bars.divergence),
    )
    detail = f"nats, at the end of {len(prompts)} prompts"
    return [
        Comparison(what=what, tool=tool(), difference=value, bar=bar, detail=detail) for what, value, bar in measured
    ]


def _greedy(source: Source, network: Transformer, llama: LlamaCpp, bars: Bars) -> Comparison:
    found = questions.greedy(source, network, tool(), _answers(source, llama), bar=bars.tie)
    return found.model_copy(update={"bar": bars.greedy})


def _answers(source: Source, llama: LlamaCpp) -> Callable[[list[int], int], list[int]]:
    """What llama.cpp finds likeliest, up to the end of the text: it stops at the end of a turn as well."""
    turn_end = source.tokenizer.specials.get(TURN_END)

    def answer(prompt: list[int], tokens: int) -> list[int]:
        ids = llama.greedy(prompt, tokens)
        while ids[-1:] == [turn_end] and len(ids) < tokens:
            ids += llama.greedy([*prompt, *ids], tokens - len(ids))
        return ids

    return answer


def _finite(value: Tensor) -> float:
    return value.item() if torch.isfinite(value) else questions.UNLIKE
