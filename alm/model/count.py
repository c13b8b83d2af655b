"""How many parameters a model has and how much arithmetic a token costs, from its configuration alone."""

from __future__ import annotations

from dataclasses import dataclass

from alm import kinds
from alm.model.config import ModelConfig, padded

FLOPS_PER_MULTIPLY_ADD = 2
# The backward pass makes two matrix products for each one of the forward pass.
TRAINING_PASSES = 3


@dataclass(frozen=True)
class Count:
    """Parameters by part, and what one token costs."""

    embedding: int
    attention: int
    feedforward: int
    norms: int
    head: int  # 0 when tied
    extras: int  # scales of x0_skip, value_residual and smear
    matmul: int  # entries of the matrices that a token is multiplied with: the head counts, tied or not
    _config: ModelConfig

    @property
    def total(self) -> int:
        """All parameters, a tied head counted once."""
        return self.embedding + self.attention + self.feedforward + self.norms + self.head + self.extras

    def forward_flops_per_token(self, tokens: int) -> float:
        """Mean FLOPs of a token in a causal sequence of `tokens`: 2 (matmul + 2 width x tokens seen, in each layer).

        Kaplan et al. 2020 (arXiv:2001.08361, table 1, 2N + 2 n_layer n_ctx d_attn), with their context replaced by
        what a causal token sees: (tokens + 1) / 2 on average, fewer in a window, once for the scores and once for the
        mixing. Norms, softmax and activations are left out.
        """
        config = self._config
        module = kinds.module_of(config.attention)
        seen: float = sum(module.seen(config.attention, tokens, layer) for layer in range(config.n_layers))
        return FLOPS_PER_MULTIPLY_ADD * (self.matmul + 2 * config.n_heads * config.head_width * seen)

    def training_flops_per_token(self, tokens: int) -> float:
        """Forward and backward: three times the forward pass (Kaplan et al. 2020, section 2.1)."""
        return TRAINING_PASSES * self.forward_flops_per_token(tokens)


def count(config: ModelConfig) -> Count:
    """The `Count` of a model of this shape; ConfigError while its vocabulary is `auto`."""
    table = config.known_vocab_size * config.d_model
    attention = config.n_layers * kinds.module_of(config.attention).matmul_parameters(config.attention, config)
    kind = kinds.module_of(config.feedforward)
    multiplied = config.n_layers * kind.matmul_parameters(config.feedforward, config)
    # Where tokens take one of several ways there are more parameters than a token is multiplied with.
    feedforward = config.n_layers * getattr(kind, "parameters", kind.matmul_parameters)(config.feedforward, config)
    # Multiplied with more rows than there are tokens, where their number is no multiple of 64.
    head = padded(config.known_vocab_size) * config.d_model
    head_norms = 2 * config.head_width if config.qk_norm else 0
    return Count(
        embedding=table,
        attention=attention,
        feedforward=feedforward,
        norms=config.n_layers * (2 * config.d_model + head_norms) + config.d_model,
        head=0 if config.tie_embeddings else table,
        extras=_extras(config),
        matmul=attention + multiplied + head,
        _config=config,
    )


def _extras(config: ModelConfig) -> int:
    residual_scales = 2 * config.n_layers if config.x0_skip else 0
    value_scales = config.n_layers - 1 if config.value_residual else 0
    return residual_scales + value_scales + (config.d_model if config.smear else 0)
