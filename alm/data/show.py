"""The documents of any batch, past or future, to investigate a loss spike."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from alm.data.loader import BatchPlan
from alm.packing.shards import PADDED, TokenStream
from alm.tokenizers.file import Tokenizer


@dataclass(frozen=True)
class Passage:
    """The text of one document in a row. `begins` is True if the document starts there."""

    text: str
    tokens: int
    begins: bool


@dataclass(frozen=True)
class Row:
    """One sequence of a batch."""

    number: int
    source: str
    passages: tuple[Passage, ...]


def batch(stream: TokenStream, tokenizer: Tokenizer, plan: BatchPlan, *, step: int) -> list[Row]:
    """Return the rows of update number `step`, counted from 0, in the order of the batch."""
    return [
        _row(stream, tokenizer, number, shift)
        for number, shift in zip(*(cut.tolist() for cut in plan.cuts(step)), strict=True)
    ]


def _row(stream: TokenStream, tokenizer: Tokenizer, number: int, shift: int) -> Row:
    padding = (
        int((stream.mask(np.array([number])) == PADDED).sum()) if stream.is_masked else stream.padding.get(number, 0)
    )
    length = stream.seq_len + 1 - padding
    ids = stream.tokens(number * stream.stride + shift, length).tolist()
    starts = [int(start) for start in stream.starts(number, shift) if start < length]
    bounds = sorted({0, *starts, length})
    passages = tuple(
        Passage(tokenizer.decode(ids[start:end]), end - start, start in starts) for start, end in pairwise(bounds)
    )
    source = next(name for name, rows in stream.sources.items() if number in rows)
    return Row(number, source, passages)
