"""Comparison of a GGUF file in llama.cpp with the same numbers in this alm.

Both get the same numbers, so only llama.cpp's own roundings remain: it sums the products of an f32 file in another
order, and rounds the other factor of a product to f16 with f16, and to 8 bits with q8_0.

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
from alm.export import optional_tools
from alm.export.held_out import held_out
from alm.export.source import Source
from alm.export.targets._gguf_model import Dtype, read_weights
from alm.export.targets._llama_cpp import PACKAGE, LlamaCpp, serving, tool
from alm.model.transformer import Transformer
from alm.tokenizers.special import TURN_END


@dataclass(frozen=True)
class Bars:
    """Largest differences allowed; None if a difference is only reported.

    `log_probability` of any token and `divergence` of the distribution, in nats, and tokens of `greedy` text. Two
    tokens count as equally likely if their scores differ by at most 2 x `tie` x the largest logit.
    """

    log_probability: float | None
    divergence: float
    tie: float
    greedy: int | None = 0


BARS: dict[Dtype, Bars] = {
    # Measured in small trained models: 3e-5 in ln p and 1e-5 in divergence.
    "f32": Bars(log_probability=1e-3, divergence=1e-4, tie=questions.LOGITS_BAR),
    # Measured: 8e-3 and 1e-5; a wrong order of rows gives 0.6 in ln p. A number of f16 is off by 1 in 4,096 at most.
    "f16": Bars(log_probability=0.05, divergence=1e-3, tie=2e-3),
    # Measured: 2e-3 in divergence; 0.4 in ln p, of very rare tokens. A number is off by up to 1 in 254 of its block's
    # largest, which can reorder the best tokens where a model is undecided: greedy text is only reported.
    "q8_0": Bars(log_probability=None, divergence=0.05, tie=2e-2, greedy=None),
}


def comparisons(source: Source, path: Path, dtype: Dtype) -> list[Comparison]:
    """Compare ids of hard texts, probabilities of the next token, greedy text, and the cost of rounding."""
    network = source.network
    if dtype != "f32":
        network = source.network_of(read_weights(path, source.model, source.weights))
    found = _in_llama_cpp(source, network, path, BARS[dtype])
    text = held_out(source)
    return found if text is None else [*found, *questions.rounding(text, source.network, network, dtype)]


def of_import(source: Source, path: Path, dtypes: str) -> list[Comparison]:
    """Compare a file of others, whose matrices have the types `dtypes`, with what was read from it."""
    optional_tools.load(PACKAGE)
    exact: dict[str, Dtype] = {"f32": "f32", "f16": "f16", "bf16": "f16"}
    kinds = {exact.get(dtype, "q8_0") for dtype in dtypes.split(", ")}
    widest = max(kinds, key=list(BARS).index)
    return _in_llama_cpp(source, source.network, path, BARS[widest])


def _in_llama_cpp(source: Source, network: Transformer, path: Path, bars: Bars) -> list[Comparison]:
    # For byte-level BPE llama.cpp has no normalizer, so that only normalized text can have the same ids.
    prepare = source.tokenizer.normalizer.normalize if source.tokenizer.normalizer.kind == "nfc" else str
    with serving(path, context=source.model.max_position_embeddings) as llama:
        return [
            questions.ids(source, tool(), lambda text: llama.encode(prepare(text))),
            *_probabilities(source, network, llama, bars),
            _greedy(source, network, llama, bars),
        ]


def _probabilities(source: Source, network: Transformer, llama: LlamaCpp, bars: Bars) -> list[Comparison]:
    prompts, end, size = questions.prompts(source), source.tokenizer.end_of_text_id, source.model.known_vocab_size
    farthest = divergence = 0.0
    for prompt in prompts:
        ours = torch.log_softmax(questions.logits_of(network, prompt)[-1].double(), -1)  # (V,)
        theirs = llama.log_probabilities(prompt, end=end, vocab_size=size).double()
        # Its sum over a large vocabulary in fp32 is off by 2 in 10,000, by the same factor for every token.
        theirs = torch.log_softmax(theirs, -1)
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
    """Return llama.cpp's greedy continuation up to the end of the text: it would also stop at the end of a turn."""
    turn_end = source.tokenizer.specials.get(TURN_END)

    def answer(prompt: list[int], tokens: int) -> list[int]:
        ids = llama.greedy(prompt, tokens)
        while ids[-1:] == [turn_end] and len(ids) < tokens:
            ids += llama.greedy([*prompt, *ids], tokens - len(ids))
        return ids

    return answer


def _finite(value: Tensor) -> float:
    return value.item() if torch.isfinite(value) else questions.UNLIKE
