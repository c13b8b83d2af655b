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
from alm.export.compare import UNLIKE
from alm.export.held_out import held_out
from alm.export.source import Source
from alm.export.targets._gguf_model import read_weights
from alm.export.targets._gguf_types import Dtype, dtype_of
from alm.export.targets._llama_cpp import MOST_TOKENS, PACKAGE, LlamaCpp, serving, tool
from alm.model.transformer import Transformer


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


# Both have the same rounded weights, so the types differ little: llama.cpp rounds the other factor to 8 bits with each.
# Measured: 2e-3 in divergence; 0.4 in ln p, of very rare tokens. A number is off by up to 1 in 254 of its block's
# largest, which can reorder the best tokens where a model is undecided: greedy text is only reported.
_OF_BLOCKS = Bars(log_probability=None, divergence=0.05, tie=2e-2, greedy=None)
BARS: dict[Dtype, Bars] = {
    # Measured in small trained models: 3e-5 in ln p and 1e-5 in divergence.
    "f32": Bars(log_probability=1e-3, divergence=1e-4, tie=questions.LOGITS_BAR),
    # Measured: 8e-3 and 1e-5; a wrong order of rows gives 0.6 in ln p. A number of f16 is off by 1 in 4,096 at most.
    "f16": Bars(log_probability=0.05, divergence=1e-3, tie=2e-3),
    "q8_0": _OF_BLOCKS,
    "q5_1": _OF_BLOCKS,
    "q4_0": _OF_BLOCKS,
    "q4_k": _OF_BLOCKS,
}


def comparisons(source: Source, path: Path, dtype: Dtype, *, adapter: Path | None = None) -> list[Comparison]:
    """Compare ids of hard texts, probabilities of the next token, greedy text, and the cost of rounding.

    The file `adapter` is added to the model in llama.cpp.
    """
    ids, checks = _asked(source, path, BARS[dtype], adapter=adapter)
    if dtype == "f32":
        network = source.network
    else:
        text = None if dtype == dtype_of(source) else held_out(source)
        checks += [] if text is None else [questions.rounding(text, source.network, dtype)]
        network = source.network_of(read_weights(path, source.model))
    return [ids, *(check(network) for check in checks)]


def of_import(source: Source, path: Path, dtypes: str) -> list[Comparison]:
    """Compare a file of others, whose matrices have the types `dtypes`, with what was read from it."""
    optional_tools.load(PACKAGE)
    exact: dict[str, Dtype] = {"f32": "f32", "f16": "f16", "bf16": "f16"}
    kinds = {exact.get(dtype, "q8_0") for dtype in dtypes.split(", ")}
    ids, checks = _asked(source, path, BARS[max(kinds, key=list(BARS).index)])
    network = source.network
    return [ids, *(check(network) for check in checks)]


def _asked(
    source: Source, path: Path, bars: Bars, *, adapter: Path | None = None
) -> tuple[Comparison, list[questions.Check]]:
    """Ask llama.cpp, which is gone afterwards."""
    # For byte-level BPE llama.cpp has no normalizer, so that only normalized text can have the same ids.
    prepare = source.tokenizer.normalizer.normalize if source.tokenizer.normalizer.kind == "nfc" else str
    with serving(path, context=_context(source), adapter=adapter) as llama:
        ids = questions.ids(source, tool(), lambda text: llama.encode(prepare(text)))
        greedy = questions.greedy(source, tool(), _answers(source, llama), bar=bars.tie)
        return ids, [*_probabilities(source, llama, bars), lambda network: _barred(greedy(network), bars.greedy)]


def _context(source: Source) -> int:
    """Return the tokens for which llama.cpp reserves memory: what the longest prompt and its answer need."""
    needed = (len(prompt) + questions.answer_tokens(source, prompt) for prompt in questions.prompts(source))
    return max(needed)


def _barred(found: Comparison, bar: int | None) -> Comparison:
    return found.model_copy(update={"bar": bar})


def _probabilities(source: Source, llama: LlamaCpp, bars: Bars) -> list[questions.Check]:
    end, size = source.tokenizer.end_of_text_id, source.model.known_vocab_size
    asked = [
        (prompt, llama.log_probabilities(prompt, end=end, vocab_size=size)) for prompt in questions.prompts(source)
    ]
    wanted = min(size, MOST_TOKENS)
    of_tokens = "" if wanted == size else f" of the {wanted:,} likeliest tokens"
    detail = f"nats, at the end of {len(asked)} prompts{of_tokens}"

    def check(what: str, distance: Callable[[Tensor, Tensor], Tensor], bar: float | None) -> questions.Check:
        def checked(network: Transformer) -> Comparison:
            pairs = (_of_listed(questions.logits_of(network, ids, last=1)[-1], found) for ids, found in asked)
            worst = max(_finite(distance(ours, theirs)) if len(ours) == wanted else UNLIKE for ours, theirs in pairs)
            return Comparison(what=what, tool=tool(), difference=worst, bar=bar, detail=detail)

        return checked

    return [
        check("ln p of every token", lambda ours, theirs: (ours - theirs).abs().max(), bars.log_probability),
        check(
            "divergence of probabilities",
            lambda ours, theirs: (ours.exp() * (ours - theirs)).sum().abs(),
            bars.divergence,
        ),
    ]


def _of_listed(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Return ln p of the tokens that llama.cpp lists, by ours and by theirs: both add up to 1 over those.

    The sum of its probabilities over a large vocabulary in fp32 is off by 2 in 10,000, by the same factor for each.
    """
    listed = theirs.isfinite()
    return torch.log_softmax(ours[listed].double(), -1), torch.log_softmax(theirs[listed].double(), -1)


def _answers(source: Source, llama: LlamaCpp) -> Callable[[list[int], int], list[int]]:
    """Return llama.cpp's greedy continuation up to the end of the text: it also stops at other ends, as of a turn."""

    def answer(prompt: list[int], tokens: int) -> list[int]:
        ids: list[int] = []
        while len(ids) < tokens and ids[-1:] != [source.tokenizer.end_of_text_id]:
            found = llama.greedy([*prompt, *ids], tokens - len(ids))
            if not found:
                break
            ids += found
        return ids

    return answer


def _finite(value: Tensor) -> float:
    return value.item() if torch.isfinite(value) else UNLIKE
