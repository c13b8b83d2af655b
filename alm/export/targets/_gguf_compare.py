"""What llama.cpp makes of a GGUF file, beside what this alm makes of the numbers in it.

The two get the same numbers, so that what is left are llama.cpp's own roundings: an f32 file's products are summed in
another order; to multiply with f16 it rounds the other factor to f16 as well, and with q8_0 to 8 bits.

N tokens, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from alm.artifacts import Comparison
from alm.export.compare import HARD_TEXTS, answer_tokens, greedy_ids, logits_of, prompts
from alm.export.held_out import TokenLosses, held_out
from alm.export.source import Source
from alm.export.targets import _gguf_model
from alm.export.targets._gguf_model import Dtype
from alm.export.targets._llama_cpp import LlamaCpp, serving, tool
from alm.model.transformer import Transformer
from alm.tokenizers.probes import PROBES
from alm.tokenizers.special import END_OF_TEXT, TURN_END

TEXTS = (*HARD_TEXTS, *PROBES.values())


@dataclass(frozen=True)
class Bars:
    """The most that may differ: ln p of any token, the whole distribution, a chosen token, and bits per byte."""

    log_probability: float | None
    divergence: float
    shortfall: float
    bits_per_byte: float


BARS: dict[Dtype, Bars] = {
    # Seen in small trained models: 3e-5 in ln p, 1e-5 in divergence, no other token, and no other bits.
    "f32": Bars(log_probability=1e-3, divergence=1e-4, shortfall=1e-3, bits_per_byte=0.0),
    # Seen: 8e-3, 1e-5, 1e-4; a wrong order of rows made 0.6 in ln p.
    "f16": Bars(log_probability=0.05, divergence=1e-3, shortfall=0.05, bits_per_byte=1e-3),
    # Seen: 0.4 in ln p of tokens that hardly ever come, which says little, 2e-3 in divergence, 0.05.
    "q8_0": Bars(log_probability=None, divergence=0.05, shortfall=0.5, bits_per_byte=0.02),
}


@dataclass(frozen=True)
class _Continuation:
    """How one answer compares: its tokens, how many are those we choose, and how far the worst falls short, nats."""

    tokens: int
    same: int
    shortfall: float


def comparisons(source: Source, path: Path, dtype: Dtype) -> list[Comparison]:
    """Ids of hard texts, probabilities of what comes next, greedy continuations, and bits per byte."""
    network = source.network_of(_gguf_model.read_weights(path, source.model, source.weights))
    with serving(path, context=source.model.max_position_embeddings) as llama:
        found = [
            _ids(source, llama),
            *_probabilities(source, network, llama, BARS[dtype]),
            _continuations(source, network, llama, BARS[dtype]),
        ]
    return [*found, *_bits_per_byte(source, network, BARS[dtype])]


def _ids(source: Source, llama: LlamaCpp) -> Comparison:
    different = sum(llama.encode(text) != source.tokenizer.encode(text) for text in TEXTS)
    return Comparison(
        what="texts with other token ids", tool=tool(), difference=different, bar=0, detail=f"{len(TEXTS)} hard texts"
    )


def _probabilities(source: Source, network: Transformer, llama: LlamaCpp, bars: Bars) -> list[Comparison]:
    farthest = divergence = 0.0
    asked = prompts(source)
    for prompt in asked:
        ours = torch.log_softmax(logits_of(network, prompt)[-1].double(), -1)
        theirs = llama.log_probabilities(prompt, source.model.known_vocab_size).double()
        farthest = max(farthest, _or_infinite((ours - theirs).abs().max()))
        divergence = max(divergence, _or_infinite((ours.exp() * (ours - theirs)).sum()))
    detail = f"what follows {len(asked)} prompts"
    measured = (
        ("ln p of every token, nats", farthest, bars.log_probability),
        ("divergence of probabilities, nats", divergence, bars.divergence),
    )
    return [
        Comparison(what=what, tool=tool(), difference=value, bar=bar, detail=detail) for what, value, bar in measured
    ]


def _or_infinite(value: Tensor) -> float:
    return value.item() if math.isfinite(value.item()) else math.inf


def _continuations(source: Source, network: Transformer, llama: LlamaCpp, bars: Bars) -> Comparison:
    found = [_continuation(source, network, llama, prompt) for prompt in prompts(source)]
    same, tokens = sum(one.same for one in found), sum(one.tokens for one in found)
    return Comparison(
        what="greedy text, nats that its tokens are less likely than ours",
        tool=tool(),
        difference=max(one.shortfall for one in found),
        bar=bars.shortfall,
        detail=f"{same:,} of {tokens:,} tokens are the same",
    )


def _continuation(source: Source, network: Transformer, llama: LlamaCpp, prompt: list[int]) -> _Continuation:
    wanted = answer_tokens(source, prompt)
    ours, theirs = greedy_ids(source, network, prompt, wanted), llama.greedy(prompt, wanted)
    same = next(
        (place for place, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )
    scores = logits_of(network, [*prompt, *theirs])[len(prompt) - 1 : -1]  # (N, V)
    short = scores.amax(1) - scores[torch.arange(len(theirs)), theirs]
    is_cut = len(theirs) < wanted and theirs[-1:] not in _ends(source)
    return _Continuation(len(ours), same, math.inf if is_cut else _or_infinite(short.max()))


def _ends(source: Source) -> list[list[int]]:
    """What llama.cpp takes for the end of a text."""
    specials = source.tokenizer.specials
    return [[specials[name]] for name in (END_OF_TEXT, TURN_END) if name in specials]


def _bits_per_byte(source: Source, network: Transformer, bars: Bars) -> list[Comparison]:
    """What the rounding of the numbers costs on held-out text, where there is any."""
    text = held_out(source)
    if text is None:
        return []
    before, after = (text.bits_per_byte(_losses_of(model)) for model in (source.network, network))
    return [
        Comparison(
            what="bits per byte of held-out text",
            tool="alm, with the numbers in the file",
            difference=abs(after - before),
            bar=bars.bits_per_byte,
            detail=f"{after:.5f}, the checkpoint {before:.5f}",
        )
    ]


def _losses_of(network: Transformer) -> TokenLosses:
    return lambda ids, targets: network.token_losses(network(ids), targets)
