"""Advises a vocabulary size: the cost of the embedding compared with the savings of shorter sequences.

The reasoning, with its sources, is in docs/vocabulary.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from alm.errors import InputError
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.pretokenize import Pattern
from alm.tokenizers.special import SPECIALS

OFTEN_ENOUGH = 30
"""Rule of thumb: occurrences in the text that a rare token needs to be learned."""

_SIZES = tuple(2**power for power in range(10, 18))


@dataclass(frozen=True)
class SizeOption:
    """A vocabulary of `vocab_size` for one model and one text.

    `bytes_per_token` is measured on the text. `flops_per_byte` is the cost of training on a byte of it. `parameters` is
    the size of the complete model, of which `embedding_share` is embeddings. `rare` is the count of the merged token at
    the lowest tenth.
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
    """Cost of a model with some vocabulary: parameters, those of the embeddings, and FLOPs per token."""

    parameters: int
    embedding: int
    flops_per_token: float


def size_options(tokenizer: Tokenizer, texts: Sequence[str], cost: Callable[[int], Cost]) -> list[SizeOption]:
    """Return vocabularies from small to large, up to the tokenizer's own, each made of its first merges.

    `cost` returns the cost of a model by its vocabulary size. Raises `InputError` if the tokenizer has no merges.
    """
    trained_here = tokenizer.specials == {name: id_ for id_, name in enumerate(SPECIALS)}
    if not tokenizer.merge_pairs or not tokenizer.is_byte_level or not trained_here:
        raise InputError(
            "advice on the vocabulary needs a byte-level BPE tokenizer that `alm` trained: only its first merges are a "
            "smaller vocabulary",
            hint="run `alm tokenizer train --kind bpe --out artifacts/bpe.json`, and compare that",
        )
    first = tokenizer.vocab_size - tokenizer.merges
    sizes = [size for size in _SIZES if first < size < tokenizer.vocab_size]
    return [_option(tokenizer, size, texts, cost(size)) for size in (*sizes, tokenizer.vocab_size)]


def best(found: Sequence[SizeOption]) -> SizeOption:
    """Return the option with the fewest FLOPs per byte whose tokens occur often enough, or the smallest if none."""
    enough = [option for option in found if option.is_seen_enough]
    return min(enough or found[:1], key=lambda option: option.flops_per_byte)


def _option(tokenizer: Tokenizer, size: int, texts: Sequence[str], cost: Cost) -> SizeOption:
    first = tokenizer.vocab_size - tokenizer.merges
    smaller = Tokenizer.from_merges(tokenizer.merge_pairs[: size - first], pattern=cast(Pattern, tokenizer.pattern))
    counts = np.bincount(smaller.encode_batch(texts).ids, minlength=size)
    made = np.sort(counts[first:])  # merged tokens only: unused byte tokens cost nothing
    bytes_per_token = sum(len(text.encode("utf-8")) for text in texts) / max(1, int(counts.sum()))
    return SizeOption(
        vocab_size=smaller.vocab_size,
        bytes_per_token=bytes_per_token,
        flops_per_byte=cost.flops_per_token / bytes_per_token,
        parameters=cost.parameters,
        embedding_share=cost.embedding / cost.parameters,
        rare=int(made[len(made) // 10]),
    )
