"""Settings of a tokenizer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from alm.config.base import Config, OfKind


class TokenizerConfig(Config):
    """Settings for training a tokenizer."""

    model: Annotated[Config, OfKind("alm.tokenizers.models", default="bpe")] = Field(
        default="bpe", validate_default=True, description="Kind of tokenizer."
    )
    vocab_size: int = Field(
        default=32000, ge=1, le=2**24, description="Number of token ids, including special tokens and bytes."
    )
