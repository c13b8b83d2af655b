from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from alm.model.config import ModelConfig
from alm.model.init import initialize
from alm.model.transformer import Transformer

TINY = {
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "ffn_hidden_size": 48,
    "vocab_size": 61,
    "max_position_embeddings": 40,
}


@pytest.fixture
def tiny_config() -> Callable[..., ModelConfig]:
    return lambda **changes: ModelConfig.model_validate({**TINY, **changes})


@pytest.fixture
def tiny_model(tiny_config: Callable[..., ModelConfig]) -> Callable[..., Transformer]:
    """A small model whose weights are large enough that a mistake anywhere shows in its logits."""

    def build(**changes: Any) -> Transformer:
        model = Transformer(tiny_config(**changes))
        initialize(model, seed=7)
        generator = torch.Generator().manual_seed(8)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise * (0.3 if parameter.dim() == 1 else 0.2))
        return model.eval()

    return build


@pytest.fixture
def ids() -> torch.Tensor:
    """(3, 24) ids below 61."""
    return torch.randint(61, (3, 24), generator=torch.Generator().manual_seed(9))
