"""Small models and runs for the checks. B batch, T tokens, V vocabulary."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from alm.data.loader import MicroBatch
from alm.model.config import ModelConfig
from alm.model.transformer import Transformer
from alm.training.config import RunConfig

_SEED = 1337
# More than one block of queries, for attention in blocks, with a last block that is not full.
TOKENS = 96
_PLAIN: dict[str, Any] = {  # Any: values of a configuration
    "d_model": 64,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 1,
    "ffn_hidden_size": 160,
    "vocab_size": 512,
    "max_position_embeddings": 128,
}
_EVERYTHING: dict[str, Any] = {
    **_PLAIN,
    "qk_norm": True,
    "tie_embeddings": False,
    "x0_skip": True,
    "value_residual": True,
    "smear": True,
    "feedforward": {"kind": "dual", "small_hidden_size": 64},
    "attention": {"kind": "grouped", "window": 24, "full_every": 2, "document_mask": True},
}


def plain() -> ModelConfig:
    """Return a small version of the default model."""
    return ModelConfig.model_validate(_PLAIN)


def with_everything() -> ModelConfig:
    """Return a small model with every part that has parameters, and every restriction of attention."""
    return ModelConfig.model_validate(_EVERYTHING)


def run_of(model: ModelConfig, *, micro_batch_size: int = 2, lr: float = 3e-3) -> RunConfig:
    """Return a short run of `model` whose embeddings learn fast, as in `alm quickstart`."""
    return RunConfig.model_validate(
        {
            "model": model.model_dump(),
            "training": {"max_steps": 100, "micro_batch_size": micro_batch_size, "gradient_accumulation": 1},
            "optim": {"kind": "adamw", "lr": lr, "embedding_lr": 10 * lr},
        }
    )


def proportional_run_of(model: ModelConfig) -> RunConfig:
    """Return a short run of `model` whose updates are nearly proportional to the gradients: `eps` exceeds their size.

    When Adam divides a gradient by its own size, rounding decides the direction of gradients near zero. After a few
    steps losses then differ by more than rounding does to any one of them.
    """
    return RunConfig.model_validate(
        {**run_of(model).model_dump(), "optim": {"kind": "adamw", "lr": 0.005, "eps": 0.01}}
    )


def random_model(config: ModelConfig, device: torch.device) -> Transformer:
    """Return a model whose layers change their input by as much as its own size.

    In an untrained model attention does next to nothing, and so does a mistake in it.
    """
    model = Transformer(config)
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for name, parameter in model.state_dict().items():
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() < 2:
                parameter.copy_(1 + 0.1 * drawn)
            else:
                is_table = name.endswith("embed_tokens.weight")
                parameter.copy_(drawn if is_table else drawn / math.sqrt(parameter.shape[1]))
    return model.to(device).eval()


def ids(config: ModelConfig, *, rows: int = 2, tokens: int = TOKENS, seed: int = _SEED) -> Tensor:
    """Draw random ids (rows, tokens) on the CPU, with some ends of text among them."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(1, config.known_vocab_size, (rows, tokens), generator=generator)
    return drawn.masked_fill(torch.rand(rows, tokens, generator=generator) < 1 / 32, 0)


def batch(config: ModelConfig, *, rows: int = 2, tokens: int = TOKENS, seed: int = _SEED) -> MicroBatch:
    """Draw random ids; the target of each is the next one."""
    drawn = ids(config, rows=rows, tokens=tokens + 1, seed=seed)
    return MicroBatch(drawn[:, :-1], drawn[:, 1:])
