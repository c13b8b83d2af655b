"""Shapes of models that are not the default: one of each kind, some together, and random ones."""

from __future__ import annotations

import random
from typing import Any

import torch

from alm.model.config import ModelConfig
from alm.model.transformer import Transformer

TOKENS = 80  # more than one block of attention
YARN: dict[str, Any] = {"method": "yarn", "factor": 4, "original_max_position_embeddings": 10}
LLAMA3: dict[str, Any] = {"method": "llama3", "factor": 8, "original_max_position_embeddings": 32}
EXTRAS: dict[str, Any] = {"x0_skip": True, "value_residual": True, "smear": True}
KINDS: list[dict[str, Any]] = [
    {"positions": "alibi"},
    {"positions": "alibi", "n_heads": 1, "n_kv_heads": 1},
    {"positions": {"kind": "rope", "scaling": YARN}},
    {"positions": {"kind": "rope", "scaling": LLAMA3}},
    {"positions": {"kind": "rope", "skip_every": 2}},
    {"attention": {"kind": "grouped", "window": 5, "full_every": 2}},
    {"attention": {"kind": "grouped", "window": 3, "full_every": 0}, "positions": "alibi"},
    {"attention": {"kind": "grouped", "document_mask": True, "end_of_text_id": 33}},
    {
        "attention": {"kind": "grouped", "document_mask": True, "window": 4, "full_every": 2, "end_of_text_id": 33},
        **EXTRAS,
    },
    EXTRAS,
    {"feedforward": "relu2"},
    {"head_dim": 6, "n_heads": 5, "n_kv_heads": 5},
    {"head_dim": 14, "qk_norm": True},
    {"attention": {"kind": "grouped", "bias": "qkv"}},
    {"attention": {"kind": "grouped", "bias": "qkvo"}, "qk_norm": True},
    {"feedforward": {"kind": "dual", "small_hidden_size": 16, "capacity_factor": 2.0}},
]


def random_values(seed: int) -> dict[str, Any]:
    """Values of a model configuration of any kind."""
    draw = random.Random(seed)
    heads = draw.choice([1, 2, 4, 6])
    kv_heads = draw.choice([k for k in (1, 2, 3, 6) if heads % k == 0])
    scaling = draw.choice(
        [
            {},
            {"method": "linear", "factor": 2.5},
            {"method": "yarn", "factor": 4.0, "original_max_position_embeddings": 30},
        ]
    )
    if random.Random(-2000 - seed).random() < 0.2:
        scaling = LLAMA3
    rope = {"kind": "rope", "scaling": scaling, "skip_every": random.Random(-3000 - seed).choice([0, 0, 0, 2])}
    attention = {"kind": "grouped", "full_every": draw.choice([0, 2])}
    if draw.random() < 0.4:
        attention["window"] = draw.choice([1, 5, 70])
    attention["bias"] = random.Random(-1000 - seed).choice(["none", "none", "qkv", "qkvo"])
    if draw.random() < 0.3:
        attention |= {"document_mask": True, "end_of_text_id": 3}
    return {
        "head_dim": random.Random(-1 - seed).choice(["auto", "auto", 6, 10]),
        "d_model": heads * draw.choice([4, 8, 16]),
        "n_layers": draw.choice([1, 2, 3]),
        "n_heads": heads,
        "n_kv_heads": kv_heads,
        "ffn_hidden_size": draw.choice([16, 24, 40]),
        "vocab_size": draw.choice([23, 64, 101]),
        "max_position_embeddings": 96,
        "rope_theta": draw.choice([100.0, 10000.0]),
        "positions": draw.choice(["alibi", rope, rope]),
        "feedforward": draw.choice(["swiglu", "swiglu", "relu2", {"kind": "dual", "small_hidden_size": 8}]),
        "attention": attention,
        "qk_norm": draw.random() < 0.5,
        "tie_embeddings": draw.random() < 0.5,
        "x0_skip": draw.random() < 0.3,
        "value_residual": draw.random() < 0.3,
        "smear": draw.random() < 0.3,
    }


def random_model(seed: int, **changes: Any) -> Transformer:
    """Weights that are large enough for a mistake anywhere to show."""
    model = Transformer(ModelConfig.model_validate({**random_values(seed), **changes}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        # Biases last, so that the other weights are those of the same model without biases.
        for name, value in sorted(model.state_dict().items(), key=lambda item: item[0].endswith(".bias")):
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(noise * 0.3 if value.dim() > 1 or name.endswith(".bias") else 1 + noise * 0.3)
    return model.eval()


def random_ids(model: Transformer, rows: int = 3, tokens: int = TOKENS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(model.config.known_vocab_size, (rows, tokens), generator=generator)
