"""A model of a few hundred numbers, for checkpoints that need no training."""

from __future__ import annotations

from typing import Any

import torch

from alm.model.config import ModelConfig
from alm.model.weights import shapes_of

TABLE = "model.embed_tokens.weight"
TINY_MODEL: dict[str, Any] = {
    "d_model": 8,
    "n_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 1,
    "ffn_hidden_size": 16,
    "vocab_size": 40,
    "max_position_embeddings": 16,
}


def tiny_weights(value: float) -> dict[str, Any]:
    """Weights of `TINY_MODEL`, all of them `value`."""
    shapes = shapes_of(ModelConfig.model_validate(TINY_MODEL))
    return {name: torch.full(shape, value) for name, shape in shapes.items()}
