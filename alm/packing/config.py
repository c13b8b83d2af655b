"""Settings of packing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from alm.config.base import MANY, Config
from alm.corpus.split import DEFAULT_FRACTION


class PackConfig(Config):
    """Settings that turn text into shards."""

    seq_len: int = Field(default=512, ge=2, le=2**24, description="Tokens predicted per sequence.")
    sequences_per_shard: int = Field(default=2048, ge=1, le=MANY, description="Sequences per shard.")
    mode: Literal["auto", "concat", "bestfit"] = Field(
        default="auto",
        description="How documents become sequences: concat joins them and cuts the stream, bestfit starts sequences "
        "at document boundaries where it can; auto uses concat up to 100 million tokens, then bestfit.",
    )
    validation_fraction: float = Field(
        default=DEFAULT_FRACTION,
        ge=0.0,
        le=0.5,
        description="Share to hold out from text that `alm corpus prepare` has not split, by the same rules.",
    )
    dtype: Literal["uint32", "uint16"] = Field(default="uint32", description="Integer type of a token id on disk.")
    documents: Literal["auto", "text", "conversations"] = Field(
        default="auto",
        description="What documents with messages become: text, as for pretraining, or conversations in the turns of "
        "the model, for fine-tuning; auto: conversations if all documents are such and the tokenizer is that of a "
        "model with a chat template.",
    )
    train_on: Literal["assistant", "all"] = Field(
        default="assistant", description="What is learned of conversations: the answers of the assistant, or all."
    )
    from_dtype: Literal["uint16", "uint32", "int32", "int64"] | None = Field(
        default=None,
        description="Integer type of the ids in `.bin` files of other tools that have neither a header nor an index; "
        "found by their values if absent.",
    )
