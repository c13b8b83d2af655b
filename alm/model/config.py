"""The shape of a model: the section `model:` of `configs/pico.yaml`.

The kinds of positions, attention and feed-forward layer are classes here, apart from their tensor code, so that reading
a configuration does not import PyTorch.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from alm.config.base import MANY, Config, OfKind
from alm.errors import ConfigError

# Tables of token ids have a multiple of this many rows, which suits the matrix units of GPUs.
ROW_MULTIPLE = 64
# Limits beyond any trained model, but small enough that counts stay exact and fast.
WIDEST, DEEPEST, MOST_HEADS, MOST_TOKEN_IDS, LONGEST = 2**17, 1024, 4096, 2**24, 2**24
Width = Annotated[int, Field(gt=0, le=WIDEST)]


# With at least this many query heads per key head, blocks are faster than PyTorch's kernel (docs/benchmarks.md).
MANY_HEADS = 3


def padded(vocab_size: int) -> int:
    """Return the number of rows of a table for `vocab_size` token ids."""
    return -(-vocab_size // ROW_MULTIPLE) * ROW_MULTIPLE


# ---- kinds of positions: `alm/model/positions.py` ----------------------------------------------------------


class RopeScaling(Config):
    """Scaling of positions, for longer sequences than in the original training.

    `linear` (Chen et al. 2023, arXiv:2306.15595, equation 4) divides all positions. `yarn` (Peng et al. 2023,
    arXiv:2309.00071, sections 3.2 to 3.4) slows down only the slow pairs, and so does `llama3` (Meta's `apply_scaling`,
    github.com/meta-llama/llama-models, for Grattafiori et al. 2024, arXiv:2407.21783).
    """

    method: Literal["none", "linear", "yarn", "llama3"] = Field(
        "none",
        description="none, linear (all positions are divided), yarn or llama3 (slow pairs are slowed down; llama3 as "
        "in Llama 3.1).",
    )
    factor: float = Field(
        1.0, ge=1, le=1e6, description="Ratio of the new sequence length to that of the original training."
    )
    original_max_position_embeddings: int | None = Field(
        None, gt=0, le=MANY, description="Longest sequence of the original training; yarn and llama3 need it."
    )
    beta_fast: float = Field(
        32.0,
        ge=1e-3,
        le=1e6,
        description="With yarn, pairs turning at least this often in an original sequence stay.",
    )
    beta_slow: float = Field(
        1.0, ge=1e-3, le=1e6, description="With yarn, pairs that turn at most this often are slowed down fully."
    )
    low_freq_factor: float = Field(
        1.0,
        ge=1e-3,
        le=1e6,
        description="With llama3, pairs that turn at most this often in an original sequence are slowed down fully.",
    )
    high_freq_factor: float = Field(
        4.0, ge=1e-3, le=1e6, description="With llama3, pairs that turn at least this often stay."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.method == "none" and self.factor != 1:
            raise ValueError("a factor needs a method: linear, yarn or llama3")
        if self.method in ("yarn", "llama3") and self.original_max_position_embeddings is None:
            raise ValueError(f"{self.method} needs original_max_position_embeddings")
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(f"low_freq_factor {self.low_freq_factor:g} is not below {self.high_freq_factor:g}")
        return self


class RopeConfig(Config):
    """Settings of the rotation. The base is the model's `rope_theta`."""

    kind: Literal["rope"] = Field("rope", description="Rotary position embedding.")
    scaling: RopeScaling = Field(RopeScaling(), description="How positions are scaled.")
    skip_every: int = Field(
        0, ge=0, le=MANY, description="Every Nth layer leaves out the rotation, as in SmolLM3; 0: none."
    )

    def rotates(self, layer: int) -> bool:
        """Return whether this layer, counted from 0, rotates queries and keys."""
        return not self.skip_every or (layer + 1) % self.skip_every != 0

    def check(self, model: ModelConfig) -> None:
        """Raise `ValueError` unless a head can be rotated in pairs."""
        if model.head_width % 2:
            is_given = model.head_dim == model.head_width
            where = "head_dim" if is_given else f"d_model {model.d_model} / n_heads {model.n_heads}"
            raise ValueError(f"rope needs an even head width, and {where} = {model.head_width}")

    def table_bytes(self, model: ModelConfig) -> int:
        """Return the bytes of the cosines and sines of all positions."""
        return 4 * model.max_position_embeddings * model.head_width


class AlibiConfig(Config):
    """Settings: none, because the slopes follow from the number of heads."""

    kind: Literal["alibi"] = Field("alibi", description="Scores fall linearly with distance; no rotation.")

    def rotates(self, layer: int) -> bool:
        """Return False."""
        return False

    def check(self, model: ModelConfig) -> None:
        """Accept any shape."""

    def table_bytes(self, model: ModelConfig) -> int:
        """Return 0: one slope per head takes almost no memory."""
        return 0


# ---- kinds of attention: `alm/model/attention.py` ----------------------------------------------------------


class GroupedConfig(Config):
    """Settings of the attention. The numbers of heads are the model's `n_heads` and `n_kv_heads`."""

    kind: Literal["grouped"] = Field("grouped", description="Causal attention with shared key and value heads.")
    window: int | None = Field(
        None, gt=0, le=MANY, description="Tokens that a token sees, including itself; absent: all before it."
    )
    full_every: int = Field(
        4, ge=0, le=MANY, description="With a window, every Nth layer uses full attention; 0: none."
    )
    bias: Literal["none", "qkv", "qkvo"] = Field(
        "none",
        description="Which of the four products add a vector: none, qkv (queries, keys and values, as in Qwen2), or "
        "qkvo (the output too).",
    )
    document_mask: bool = Field(
        False, description="Whether a token sees only its own document. An end-of-text token opens a document."
    )
    end_of_text_id: int = Field(0, ge=0, le=MANY, description="The token that opens a document, for document_mask.")

    def window_of(self, layer: int) -> int | None:
        """Return the most tokens that a token of this layer, counted from 0, sees; None for all."""
        is_full = self.full_every and (layer + 1) % self.full_every == 0
        return None if is_full else self.window

    def matmul_parameters(self, model: ModelConfig) -> int:
        """Return the number of entries of the matrices that multiply every token."""
        return model.d_model * 2 * (model.n_heads + model.n_kv_heads) * model.head_width

    def bias_parameters(self, model: ModelConfig) -> int:
        """Return the number of entries of the vectors that are added to products."""
        inner = (model.n_heads + 2 * model.n_kv_heads) * model.head_width
        return {"none": 0, "qkv": inner, "qkvo": inner + model.d_model}[self.bias]

    def saved_bytes(self, model: ModelConfig, *, narrow: int) -> float:
        """Return the bytes that one token saves for the backward pass: queries, keys, values and the mixed values.

        `narrow` is the size of a number that matrix products return; norms keep fp32.
        """
        query_width, kv_width = model.n_heads * model.head_width, model.n_kv_heads * model.head_width
        before_norm = query_width + kv_width + model.n_heads + model.n_kv_heads if model.qk_norm else 0
        # PyTorch's kernel also keeps the logarithm of each softmax's sum. Blocks do not.
        sums = model.n_heads if model.n_heads < MANY_HEADS * model.n_kv_heads else 0
        return narrow * (2 * query_width + 2 * kv_width) + 4 * (before_norm + sums)

    def attended(self, tokens: int, layer: int) -> float:
        """Return how many tokens each of `tokens` sees on average, including itself, as if all were one document."""
        window = min(self.window_of(layer) or tokens, tokens)
        return (window * (window + 1) / 2 + (tokens - window) * window) / tokens


# ---- kinds of feed-forward layer: `alm/model/feedforward.py` -----------------------------------------------


class FeedForwardConfig(Config):
    """What `alm/model/count.py` asks of every feed-forward layer. The inner width is the model's `ffn_hidden_size`."""

    # Whether tokens of a micro-batch depend on each other, so that another micro-batch size trains another model.
    mixes_micro_batch: ClassVar[bool] = False

    def parameters(self, model: ModelConfig) -> int:
        """Return the number of entries of all matrices."""
        return self.matmul_parameters(model)

    def matmul_parameters(self, model: ModelConfig) -> int:
        """Return the average number of matrix entries that multiply a token in training."""
        raise NotImplementedError

    def saved_bytes(self, model: ModelConfig, *, narrow: int) -> float:
        """Return the bytes that one token saves for the backward pass. `narrow` as in the attention."""
        raise NotImplementedError


class SwiGLUConfig(FeedForwardConfig):
    """Settings of the layer. The inner width is the model's `ffn_hidden_size`."""

    kind: Literal["swiglu"] = Field("swiglu", description="Feed-forward layer gated by SiLU.")

    def matmul_parameters(self, model: ModelConfig) -> int:
        """Return the entries of gate, up and down."""
        return 3 * model.d_model * model.ffn_hidden_size

    def saved_bytes(self, model: ModelConfig, *, narrow: int) -> float:
        """Return the bytes of both halves and their product."""
        return narrow * 3 * model.ffn_hidden_size


class ReLU2Config(FeedForwardConfig):
    """Settings of the layer. The inner width is the model's `ffn_hidden_size`."""

    kind: Literal["relu2"] = Field("relu2", description="Feed-forward layer with squared ReLU, without a gate.")

    def matmul_parameters(self, model: ModelConfig) -> int:
        """Return the entries of up and down."""
        return 2 * model.d_model * model.ffn_hidden_size

    def saved_bytes(self, model: ModelConfig, *, narrow: int) -> float:
        """Return the bytes of the rectified values and their squares."""
        return narrow * 2 * model.ffn_hidden_size


class DualConfig(FeedForwardConfig):
    """Settings of the two layers. The inner width of the large one is the model's `ffn_hidden_size`. Not exportable."""

    # In training, capacity and balance are computed per micro-batch.
    mixes_micro_batch: ClassVar[bool] = True

    kind: Literal["dual"] = Field(
        "dual", description="A small and a large feed-forward layer; a router picks one per token. Not exportable."
    )
    small_hidden_size: int = Field(384, gt=0, le=2**20, description="Width inside the small layer.")
    capacity_factor: float = Field(
        1.25, ge=1e-6, le=2, description="In training, the large layer takes at most this multiple of half the tokens."
    )
    drop_tokens: bool = Field(
        False, description="Whether tokens beyond the capacity are dropped; otherwise the small layer takes them."
    )
    temperature: float = Field(1.0, ge=1e-3, le=1e3, description="Divisor of the router's scores.")
    balance_weight: float = Field(0.01, ge=0, le=1e3, description="Weight of the loss that keeps both layers in use.")
    z_weight: float = Field(0.001, ge=0, le=1e3, description="Weight of the loss that keeps the router's scores small.")

    def parameters(self, model: ModelConfig) -> int:
        """Return the number of entries of all matrices."""
        return model.d_model * (2 + 3 * self.small_hidden_size + 3 * model.ffn_hidden_size)

    def matmul_parameters(self, model: ModelConfig) -> int:
        """Return the average number of matrix entries that multiply a token in training.

        The large layer runs on as many tokens as its capacity, the small one on all, so that shapes do not change.
        """
        large = round(3 * model.ffn_hidden_size * self.capacity_factor / 2)
        return model.d_model * (2 + 3 * self.small_hidden_size + large)

    def saved_bytes(self, model: ModelConfig, *, narrow: int) -> float:
        """Return the average bytes that one token saves for the backward pass, without the router's few."""
        large = self.capacity_factor / 2 * (3 * model.ffn_hidden_size + 3 * model.d_model)
        return narrow * (3 * self.small_hidden_size + model.d_model + large)


# ---- the model ---------------------------------------------------------------------------------------------


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
    positions: Annotated[RopeConfig | AlibiConfig, OfKind((RopeConfig, AlibiConfig), default="rope")] = Field(
        RopeConfig(), description="How a token's position enters the model."
    )
    feedforward: Annotated[
        SwiGLUConfig | ReLU2Config | DualConfig,
        OfKind((SwiGLUConfig, ReLU2Config, DualConfig), default="swiglu"),
    ] = Field(SwiGLUConfig(), description="The feed-forward layer of each block.")
    attention: Annotated[GroupedConfig, OfKind((GroupedConfig,), default="grouped")] = Field(
        GroupedConfig(), description="The attention layer of each block."
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
        end = self.attention.end_of_text_id
        if isinstance(self.vocab_size, int) and end >= self.vocab_size:
            raise ValueError(f"attention.end_of_text_id {end} is not one of {self.vocab_size} token ids")
        return self

    @model_validator(mode="after")
    def _positions_fit(self) -> Self:
        self.positions.check(self)
        return self

    @property
    def head_width(self) -> int:
        """Width E of one head."""
        return self.d_model // self.n_heads if isinstance(self.head_dim, str) else self.head_dim

    @property
    def is_llama(self) -> bool:
        """Whether this is a Llama, Mistral, Qwen2, Qwen3 or SmolLM3: the fast generation backends support no other."""
        is_usual = (self.positions.kind, self.feedforward.kind, self.attention.kind) == ("rope", "swiglu", "grouped")
        return is_usual and not (self.x0_skip or self.value_residual or self.smear or self.attention.document_mask)

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
        """Return the same configuration with this many token ids; `ConfigError` if it names an id beyond them."""
        values: dict[str, Any] = dict(self)  # Any: one value of each field's type
        try:
            return type(self).model_validate({**values, "vocab_size": vocab_size})
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(
                f"the model does not fit a tokenizer of {vocab_size:,} tokens: {reason}",
                hint="leave `model.attention.end_of_text_id` out, or set it to an id of the tokenizer",
            ) from error
