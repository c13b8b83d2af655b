"""How large a vocabulary should be: what the embedding costs against what shorter sequences save.

The reasoning, with its sources, is in docs/vocabulary.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from alm.errors import InputError
from alm.tokenizers.file import Tokenizer

OFTEN_ENOUGH = 30
"""How often the rarer tokens should occur in the text, at least, to be learned: a rule of thumb."""

_SIZES = tuple(2**power for power in range(10, 18))


@dataclass(frozen=True)
class Choice:
    """A vocabulary of `vocab_size` for one model and one text.

    `bytes_per_token` is of the text; `flops_per_byte` what training on a byte of it costs; `parameters` are the whole
    model's, and `embedding_share` of them are embeddings; `rare` is how often a merged token occurs that is rarer
    than nine of ten.
    """

    vocab_size: int
    bytes_per_token: float
    flops_per_byte: float
    parameters: int
    embedding_share: float
    rare: int

    @property
    def is_seen_enough(self) -> bool:
        """Whether nine of ten merged tokens occur often enough."""
        return self.rare >= OFTEN_ENOUGH


@dataclass(frozen=True)
class Cost:
    """What a model with some vocabulary has in parameters, all and in embeddings, and in FLOPs a token."""

    parameters: int
    embedding: int
    flops_per_token: float


def choices(tokenizer: Tokenizer, texts: Sequence[str], cost: Callable[[int], Cost]) -> list[Choice]:
    """Vocabularies from small to large, up to the tokenizer's own, each made of its first merges.

    `cost` gives what a model with a vocabulary of that size costs. `InputError` when the tokenizer has no merges.
    """
    if not tokenizer.merge_pairs or not tokenizer.is_byte_level:
        raise InputError(
            "advice on the vocabulary needs a byte-level BPE tokenizer: only its first merges are a smaller vocabulary",
            hint="run `alm tokenizer train --kind bpe --out artifacts/bpe.json`, and compare that",
        )
    first = tokenizer.vocab_size - tokenizer.merges
    sizes = [size for size in _SIZES if first < size < tokenizer.vocab_size]
    return [_choice(tokenizer, size, texts, cost(size)) for size in (*sizes, tokenizer.vocab_size)]


def best(found: Sequence[Choice]) -> Choice:
    """The cheapest for each byte of text, of those whose tokens occur often enough; the smallest if none's do."""
    enough = [choice for choice in found if choice.is_seen_enough]
    return min(enough or found[:1], key=lambda choice: choice.flops_per_byte)


def _choice(tokenizer: Tokenizer, size: int, texts: Sequence[str], cost: Cost) -> Choice:
    first = tokenizer.vocab_size - tokenizer.merges
    smaller = Tokenizer.from_merges(tokenizer.merge_pairs[: size - first], pattern=tokenizer.pattern)
    counts = np.bincount(smaller.encode_batch(texts).ids, minlength=size)
    made = np.sort(counts[first:])  # bytes that the text never has are no loss
    bytes_per_token = sum(len(text.encode("utf-8")) for text in texts) / max(1, int(counts.sum()))
    return Choice(
        vocab_size=smaller.vocab_size,
        bytes_per_token=bytes_per_token,
        flops_per_byte=cost.flops_per_token / bytes_per_token,
        parameters=cost.parameters,
        embedding_share=cost.embedding / cost.parameters,
        rare=int(made[len(made) // 10]),
    )
