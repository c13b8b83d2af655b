"""What rounding costs: the rounded model beside the one before, on the same held-out text and in sampled text.

T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import NormalDist, stdev

import torch
from torch import Tensor

from alm.artifacts import QuantizedCost
from alm.data.loader import NO_TARGET, MicroBatch
from alm.export.quantize_text import FEWEST_ROWS, Texts, words_in
from alm.generation.config import SamplingConfig
from alm.generation.engine import Engine, NewToken, Request
from alm.model.transformer import Transformer
from alm.tokenizers.file import Tokenizer

_AT_A_TIME = 256  # tokens whose scores of all V ids are in memory
_Z = NormalDist().inv_cdf(0.975)  # of a 95% interval
_PROMPT_TOKENS, _SAMPLED_TOKENS, _ENGINE_ROWS = 16, 48, 8

# A difference that is surely beyond these makes `alm quantize` refuse: its interval lies above them.
MOST_BITS_PER_BYTE = {"int8": 0.006, "int4": 0.03}
MOST_NON_WORDS_TIMES, LEAST_NON_WORDS = 1.5, 0.01


@dataclass
class _Sums:
    """Sums over the measured tokens, and for each row the difference of nats and the bytes."""

    before: float = 0.0
    after: float = 0.0
    bytes: int = 0
    same: int = 0
    divergences: list[Tensor] = field(default_factory=list)
    rows: list[tuple[float, int]] = field(default_factory=list)


@torch.inference_mode()
def cost(before: Transformer, after: Transformer, tokenizer: Tokenizer, texts: Texts, *, samples: int) -> QuantizedCost:
    """Measure `after` against `before` on the held-out rows of `texts`, and in `samples` texts of each model."""
    widths = torch.from_numpy(tokenizer.bytes_per_id.astype("int64"))
    sums = _Sums()
    for batch in texts.measured:
        _add(sums, before, after, batch, widths)
    divergences = torch.cat(sums.divergences)
    size = max(sums.bytes, 1) * math.log(2)
    words = _NonWords()
    if samples and texts.words:
        known = texts.words.union(*(words_in(tokenizer.decode(batch.inputs[0].tolist())) for batch in texts.measured))
        words = _NonWords.of(*(_unknown(model, tokenizer, texts, known, samples) for model in (before, after)))
    return QuantizedCost(
        text=texts.name,
        tokens=len(divergences),
        bits_per_byte_before=sums.before / size,
        bits_per_byte=sums.after / size,
        difference_margin=_margin(sums),
        kl_mean=divergences.mean().item(),
        kl_99=divergences.quantile(0.99).item(),
        same_top=sums.same / max(len(divergences), 1),
        non_words_before=words.before,
        non_words=words.after,
        non_words_margin=words.margin,
    )


def refusals(cost: QuantizedCost, to: str) -> list[str]:
    """List in what the rounded model is too much worse, beyond what chance explains."""
    found = []
    difference = cost.bits_per_byte - cost.bits_per_byte_before
    if cost.difference_margin is not None and difference - cost.difference_margin > MOST_BITS_PER_BYTE[to]:
        found.append(
            f"{cost.bits_per_byte:.4f} bits/byte, {difference:+.4f}, on {cost.text}: "
            f"the limit for {to} is {MOST_BITS_PER_BYTE[to]:+g}"
        )
    if cost.non_words is not None and cost.non_words_before is not None:
        most = max(MOST_NON_WORDS_TIMES * cost.non_words_before, cost.non_words_before + LEAST_NON_WORDS)
        if cost.non_words - (cost.non_words_margin or 0.0) > most:
            found.append(
                f"{cost.non_words:.1%} of the sampled words are in no text it knows, "
                f"{cost.non_words_before:.1%} before: the limit is {most:.1%}"
            )
    return found


def _add(sums: _Sums, before: Transformer, after: Transformer, batch: MicroBatch, widths: Tensor) -> None:
    targets = batch.targets.flatten()
    bytes_of = widths[targets.clamp_min(0)] * (targets != NO_TARGET)
    places = (targets != NO_TARGET).nonzero()[:, 0]
    hidden = [model(batch.inputs, documents=batch.documents).flatten(0, 1)[places] for model in (before, after)]
    nats = [0.0, 0.0]
    for start in range(0, len(places), _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        first, second = (
            model.logits(each[part]).log_softmax(-1) for model, each in zip((before, after), hidden, strict=True)
        )
        ids, counts = targets[places[part]], bytes_of[places[part]] > 0
        for number, scores in enumerate((first, second)):
            nats[number] -= scores.gather(1, ids[:, None])[:, 0][counts].double().sum().item()
        sums.divergences.append((first.exp() * (first - second)).sum(-1).clamp_min(0))
        sums.same += int((first.argmax(-1) == second.argmax(-1)).sum())
    size = int(bytes_of.sum())
    sums.before, sums.after, sums.bytes = sums.before + nats[0], sums.after + nats[1], sums.bytes + size
    sums.rows.append((nats[1] - nats[0], size))


def _margin(sums: _Sums) -> float | None:
    """Return half the interval of the difference in bits per byte: rows are nearly independent of each other."""
    if len(sums.rows) < FEWEST_ROWS:
        return None
    mean = (sums.after - sums.before) / max(sums.bytes, 1)
    spread = stdev([nats - mean * size for nats, size in sums.rows])
    return _Z * spread * math.sqrt(len(sums.rows)) / max(sums.bytes, 1) / math.log(2)


@dataclass(frozen=True)
class _NonWords:
    """Shares of words that are not known, and half of the 95% interval of their difference; None if not measured."""

    before: float | None = None
    after: float | None = None
    margin: float | None = None

    @classmethod
    def of(cls, before: list[tuple[int, int]], after: list[tuple[int, int]]) -> _NonWords:
        """Compute them from the unknown and all words of each sampled text of both models."""
        words_before, words_after = (max(_words(found), 1) for found in (before, after))
        pairs = zip(before, after, strict=True)
        differences = [later[0] / words_after - sooner[0] / words_before for sooner, later in pairs]
        spread = stdev(differences) if len(differences) > 1 else 0.0
        share = sum(unknown for unknown, _ in before) / words_before
        return cls(share, share + sum(differences), _Z * spread * math.sqrt(len(differences)))


def _words(found: list[tuple[int, int]]) -> int:
    return sum(words for _, words in found)


def _unknown(
    model: Transformer, tokenizer: Tokenizer, texts: Texts, known: frozenset[str], samples: int
) -> list[tuple[int, int]]:
    """Return for each of `samples` continuations of held-out text how many words are not `known`, and how many it has.

    The first and the last word may be cut, so they do not count.
    """
    words = [words_in(text)[1:-1] for text in _continuations(model, tokenizer, texts, samples)]
    return [(sum(word not in known for word in each), len(each)) for each in words]


def _continuations(model: Transformer, tokenizer: Tokenizer, texts: Texts, samples: int) -> Iterator[str]:
    rows = [batch.inputs[0].tolist() for batch in texts.measured]
    room = min(_PROMPT_TOKENS + _SAMPLED_TOKENS, model.config.max_position_embeddings)
    engine = Engine(
        model,
        end_of_text_id=tokenizer.end_of_text_id,
        vocab_size=tokenizer.vocab_size,
        rows=min(_ENGINE_ROWS, samples),
        max_tokens=room,
    )
    found: dict[int, list[int]] = {}
    for number in range(samples):
        row = rows[number % len(rows)]
        start = number // len(rows) * _PROMPT_TOKENS % max(1, len(row) - _PROMPT_TOKENS)
        prompt = row[start : start + min(_PROMPT_TOKENS, room // 2)]
        sampling = SamplingConfig(max_tokens=max(1, room - len(prompt)), seed=number)
        found[engine.add(Request(prompt, sampling))] = []
    for event in engine.run():
        if isinstance(event, NewToken):
            found[event.number].append(event.token.id)
    for ids in found.values():
        yield tokenizer.decode(ids)
