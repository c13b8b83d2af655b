"""Settings of a tokenizer, and the vocabulary that suits an amount of text."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from alm.config.base import Config, OfKind

# The square root of the text, through 2,048 tokens for 2 MB. A larger vocabulary has tokens that are too rare to learn;
# a smaller one makes the text longer (docs/vocabulary.md).
SMALLEST_AUTO, LARGEST_AUTO = 512, 32_768
_MEASURED_BYTES, _MEASURED_SIZE = 2_000_000, 2048


class TokenizerConfig(Config):
    """Settings for training a tokenizer."""

    model: Annotated[Config, OfKind("alm.tokenizers.models", default="bpe")] = Field(
        default="bpe", validate_default=True, description="Kind of tokenizer."
    )
    vocab_size: Annotated[int, Field(ge=1, le=2**24)] | Literal["auto"] = Field(
        default="auto",
        description="Number of token ids, including special tokens and bytes; auto follows the amount of text: 2,048 "
        "for 2 MB, 8,192 for 20 MB.",
    )


def vocabulary_for_text(size: int) -> int:
    """Return the number of tokens, a power of two, that suits a text of `size` UTF-8 bytes."""
    wanted = _MEASURED_SIZE * math.sqrt(max(size, 1) / _MEASURED_BYTES)
    found: int = 2 ** round(math.log2(wanted))
    return min(max(found, SMALLEST_AUTO), LARGEST_AUTO)
