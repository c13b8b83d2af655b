"""The shape of a model: the section `model:` of `configs/pico.yaml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from alm import kinds
from alm.config.base import Config, OfKind
from alm.errors import ConfigError

# Tables of token ids have a multiple of this many rows, which suits the matrix units of GPUs.
ROW_MULTIPLE = 64
# Limits beyond any trained model, but small enough that counts stay exact and fast.
WIDEST, DEEPEST, MOST_HEADS, MOST_TOKEN_IDS, LONGEST = 2**17, 1024, 4096, 2**24, 2**24
Width = Annotated[int, Field(gt=0, le=WIDEST)]


def padded(vocab_size: int) -> int:
    """Return the number of rows of a table for `vocab_size` token ids."""
    return -(-vocab_size // ROW_MULTIPLE) * ROW_MULTIPLE


def _misfit(message: str) -> PydanticCustomError:
    """Make an error whose message already names the values that do not fit together."""
    return PydanticCustomError("kind", "{message}", {"message": message})


class ModelConfig(Config):
    """A decoder-only transformer. The defaults are a Llama with one key/value head."""

    d_model: Width = Field(384, description="Width of the residual stream.")
    n_layers: int = Field(8, ge=1, le=DEEPEST, description="Number of transformer blocks.")
    head_dim: Literal["auto"] | Width = Field(
        "auto", description="Width of one head, or `auto` for `d_model` / `n_heads`."
    )
    n_heads: int = Field(6, ge=1, le=MOST_HEADS, description="Number of query heads in each attention.")
    n_kv_heads: int = Field(
        1, ge=1, le=MOST_HEADS, description="Number of key and value heads, each shared by a group of query heads."
    )
    ffn_hidden_size: int = Field(1536, ge=1, le=8 * WIDEST, description="Width inside the feed-forward layer.")
    vocab_size: Literal["auto"] | Annotated[int, Field(gt=0, le=MOST_TOKEN_IDS)] = Field(
        "auto", description="Number of token ids; `auto` takes it from the tokenizer."
    )
    max_position_embeddings: int = Field(
        1024, ge=1, le=LONGEST, description="Longest sequence in tokens, including the prompt."
    )
    rope_theta: float = Field(10000.0, gt=1, le=1e12, description="Base of the rotary frequencies.")
    positions: Annotated[Config, OfKind("alm.model.positions", default="rope")] = Field(
        cast(Config, "rope"), validate_default=True, description="How a token's position enters the model."
    )
    feedforward: Annotated[Config, OfKind("alm.model.feedforward", default="swiglu")] = Field(
        cast(Config, "swiglu"), validate_default=True, description="The feed-forward layer of each block."
    )
    attention: Annotated[Config, OfKind("alm.model.attention", default="grouped")] = Field(
        cast(Config, "grouped"), validate_default=True, description="The attention layer of each block."
    )
    qk_norm: bool = Field(False, description="Whether queries and keys are normalized in each head, as in Qwen3.")
    x0_skip: bool = Field(
        False, description="Whether each block also sees the embeddings, through a learned scale. Not exportable."
    )
    value_residual: bool = Field(
        False, description="Whether each block mixes its values with those of the first block. Not exportable."
    )
    smear: bool = Field(
        False, description="Whether each token's embedding gets a learned share of the previous one's. Not exportable."
    )
    copy_init: float = Field(
        0.0,
        ge=0,
        le=100,
        description="How much of its input each attention passes on unchanged at initialization; 0 starts from noise. "
        "With 1 or 2 and tied embeddings, a small model learns to copy names far sooner (docs/benchmarks.md). "
        "The first loss may then be below that of a uniform guess.",
    )
    tie_embeddings: bool = Field(True, description="Whether the output head is the embedding table.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping a value in training.")
    norm_eps: float = Field(1e-6, ge=1e-12, le=1, description="Added to the mean square before the square root.")

    @field_validator("n_heads")
    @classmethod
    def _heads_divide_width(cls, n_heads: int, info: ValidationInfo) -> int:
        d_model = info.data.get("d_model")
        if info.data.get("head_dim") == "auto" and d_model is not None and d_model % n_heads:
            raise _misfit(f"n_heads {n_heads} does not divide d_model {d_model}")
        return n_heads

    @field_validator("n_kv_heads")
    @classmethod
    def _kv_heads_divide_heads(cls, n_kv_heads: int, info: ValidationInfo) -> int:
        n_heads = info.data.get("n_heads")
        if n_heads is not None and n_heads % n_kv_heads:
            raise _misfit(f"n_kv_heads {n_kv_heads} does not divide n_heads {n_heads}")
        return n_kv_heads

    @model_validator(mode="after")
    def _end_of_text_is_a_token(self) -> Self:
        end = getattr(self.attention, "end_of_text_id", 0)
        if isinstance(self.vocab_size, int) and end >= self.vocab_size:
            raise ValueError(f"attention.end_of_text_id {end} is not one of {self.vocab_size} token ids")
        return self

    @model_validator(mode="after")
    def _positions_fit(self) -> Self:
        kinds.module_of(self.positions).check(self)
        return self

    @property
    def head_width(self) -> int:
        """Width E of one head."""
        return self.d_model // self.n_heads if isinstance(self.head_dim, str) else self.head_dim

    @property
    def known_vocab_size(self) -> int:
        """V as a number. Raises `ConfigError` while it is `auto`."""
        if isinstance(self.vocab_size, str):
            raise ConfigError(
                "`model.vocab_size` is `auto`, but there is no tokenizer to take it from",
                hint="set it: `--set model.vocab_size=32000`",
            )
        return self.vocab_size

    def with_vocab_size(self, vocab_size: int) -> Self:
        """Return the same configuration with this many token ids."""
        values: dict[str, Any] = dict(self)  # Any: one value of each field's type
        return type(self).model_validate({**values, "vocab_size": vocab_size})
