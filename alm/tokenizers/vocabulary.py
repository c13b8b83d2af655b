"""Advises a vocabulary size: the cost of the embedding compared with the savings of shorter sequences.

The reasoning, with its sources, is in docs/vocabulary.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from alm.tokenizers.file import Tokenizer

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
    """Return vocabularies from small to large; the last is the tokenizer's own, and the others are its first merges.

    `cost` returns the cost of a model by its vocabulary size.
    """
    merges = _merges_by_size(tokenizer)
    smaller = [size for size in _SIZES if size in merges and size < tokenizer.vocab_size]
    parts = [(size, tokenizer.with_merges(merges[size])) for size in smaller]
    return [_option(part, size, texts, cost(size)) for size, part in (*parts, (tokenizer.vocab_size, tokenizer))]


def has_smaller_sizes(tokenizer: Tokenizer) -> bool:
    """Whether the first merges of `tokenizer` are what training would have given for a smaller vocabulary."""
    return bool(_merges_by_size(tokenizer))


def best(found: Sequence[SizeOption]) -> SizeOption:
    """Return the option with the fewest FLOPs per byte whose tokens occur often enough, or the smallest if none."""
    enough = [option for option in found if option.is_seen_enough]
    return min(enough, key=lambda one: one.flops_per_byte) if enough else min(found, key=lambda one: one.vocab_size)


def _merges_by_size(tokenizer: Tokenizer) -> dict[int, int]:
    """Return the number of merges of each vocabulary that the first merges make; none if they are in another order.

    Several merges may make one token: files of SentencePiece list all ways to make it, also of parts that come later.
    """
    made = tokenizer.merged_ids
    missing = set(made)
    first, found = tokenizer.vocab_size - len(missing), dict[int, int]()
    for number, (pair, id_) in enumerate(zip(tokenizer.merge_pairs, made, strict=True), 1):
        if missing.isdisjoint(pair):
            missing.discard(id_)
        found[tokenizer.vocab_size - len(missing)] = number
    found.pop(first, None)
    return {} if missing else found


def _option(tokenizer: Tokenizer, size: int, texts: Sequence[str], cost: Cost) -> SizeOption:
    counts = np.bincount(tokenizer.encode_batch(texts).ids, minlength=tokenizer.vocab_size)
    # Tokens of one byte are left out: unused ones cost nothing.
    learned = np.unique(tokenizer.merged_ids) if tokenizer.merges else np.flatnonzero(tokenizer.bytes_per_id > 1)
    occurrences = np.sort(counts[learned])
    bytes_per_token = sum(len(text.encode("utf-8")) for text in texts) / max(1, int(counts.sum()))
    return SizeOption(
        vocab_size=size,
        bytes_per_token=bytes_per_token,
        flops_per_byte=cost.flops_per_token / bytes_per_token,
        parameters=cost.parameters,
        embedding_share=cost.embedding / cost.parameters,
        rare=int(occurrences[len(occurrences) // 10]) if len(occurrences) else 0,
    )
