from __future__ import annotations

import pytest
import torch

from alm.model.config import ModelConfig
from alm.model.init import initialize
from alm.model.transformer import Transformer


@pytest.fixture
def model() -> Transformer:
    """61 ids, a context of 40; its scores are large enough that no two ids are nearly equal."""
    model = Transformer(
        ModelConfig(
            d_model=32,
            n_layers=2,
            n_heads=4,
            n_kv_heads=2,
            ffn_hidden_size=48,
            vocab_size=61,
            max_position_embeddings=40,
            tie_embeddings=False,
            dropout=0.5,
        )
    )
    initialize(model, seed=7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(15.0 if parameter.dim() > 1 else 1.0)
    return model
