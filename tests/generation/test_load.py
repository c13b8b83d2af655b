"""A loaded model shares the memory of what was read, and is the model into which weights were copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from builders import run_config
from cases import for_each
from model_kinds import KINDS

from alm.checkpoint.format import Checkpoint
from alm.checkpoint.save import save_checkpoint
from alm.generation.load import load_model
from alm.model.config import ModelConfig
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.tokenizers.file import Tokenizer

TOKENIZER = Tokenizer.from_merges([])
SMALL: dict[str, Any] = {
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "ffn_hidden_size": 48,
    "vocab_size": TOKENIZER.vocab_size + 1,  # its table has padding rows
    "max_position_embeddings": 40,
    "dropout": 0.5,
}
CASES = [
    *((shape, torch.float32) for shape in ({}, {"tie_embeddings": False}, *KINDS)),
    ({}, torch.bfloat16),
    ({"tie_embeddings": False}, torch.float16),
]


def copied(config: ModelConfig, dtype: torch.dtype) -> tuple[Transformer, dict[str, torch.Tensor]]:
    """A model into which weights of `dtype` were copied, and these."""
    drawn = Transformer(config)
    initialize(drawn, seed=2)
    weights = {name: tensor.to(dtype) for name, tensor in drawn.state_dict().items()}
    model = Transformer(config)
    model.load_state_dict(weights)
    return model.eval(), weights


def saved(folder: Path, config: ModelConfig, weights: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    TOKENIZER.save(folder / "tokenizer.json")
    values = {**run_config().model_dump(mode="json"), "model": config.model_dump(mode="json")}
    checkpoint = Checkpoint(
        step=3,
        samples_seen=0,
        model=weights,
        optimizer={},
        rng=[],
        config=values,
        environment={},
        tokenizer_sha256=TOKENIZER.sha256,
        data_sha256="d" * 64,
    )
    save_checkpoint(checkpoint, folder)
    return folder


@for_each("shape, dtype", CASES)
@torch.inference_mode()
def test_it_has_the_bits_of_a_copy(tmp_path: Path, shape: dict[str, Any], dtype: torch.dtype) -> None:
    config = ModelConfig.model_validate({**SMALL, **shape})
    expected, weights = copied(config, dtype)
    folder = saved(tmp_path / str(len(list(tmp_path.iterdir()))), config, weights)
    found = load_model(folder, device_name="cpu").model
    assert not found.training
    for (_, ours), (_, theirs) in zip(found.named_parameters(), expected.named_parameters(), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    ids = torch.randint(SMALL["vocab_size"], (2, 40), generator=torch.Generator().manual_seed(1))
    assert torch.equal(found.logits(found(ids)), expected.logits(expected(ids)))


def test_it_shares_the_memory_of_its_weights() -> None:
    config = ModelConfig.model_validate({**SMALL, "vocab_size": 256})
    _, weights = copied(config, torch.float32)
    held = Transformer.holding(config, weights)
    assert {name: each.data_ptr() for name, each in held.state_dict().items()} == {
        name: each.data_ptr() for name, each in weights.items()
    }
