from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from alm.model.config import ModelConfig
from alm.model.init import initialize
from alm.model.loss import token_losses
from alm.model.transformer import Transformer

PICO = ModelConfig(vocab_size=32000)
# A standard deviation measured on 5000 values or more is off by 1 per cent; four of those.
SPREAD = 0.04


def built(config: ModelConfig, seed: int = 0) -> Transformer:
    model = Transformer(config)
    initialize(model, seed=seed)
    return model


@pytest.mark.parametrize(
    "config",
    [PICO, PICO.model_copy(update={"copy_init": 1.0}), ModelConfig(d_model=64, n_heads=2, n_layers=2, vocab_size=64)],
)
def test_first_loss_is_that_of_a_uniform_guess(config: ModelConfig) -> None:
    ids = torch.randint(config.known_vocab_size, (2, 33), generator=torch.Generator().manual_seed(0))
    model = built(config)
    with torch.no_grad():
        loss = token_losses(model(ids[:, :-1]), model.head_weight, ids[:, 1:]).mean().item()
    assert abs(loss - math.log(config.known_vocab_size)) < 0.3


def test_spread_of_each_matrix(tiny_config: Callable[..., ModelConfig]) -> None:
    shape = {"d_model": 96, "n_heads": 4, "n_layers": 3, "ffn_hidden_size": 96, "tie_embeddings": False}
    model = built(tiny_config(**shape, attention={"kind": "grouped", "bias": "qkvo"}))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert torch.equal(parameter, torch.full_like(parameter, 0 if name.endswith(".bias") else 1)), name
        else:
            residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            expected = 0.02 / math.sqrt(6) if residual else 0.02
            assert abs(parameter.std().item() / expected - 1) < SPREAD, name


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(4, 4), (4, 2), (4, 1)])
def test_attention_that_copies_hands_on_what_it_reads(n_heads: int, n_kv_heads: int) -> None:
    config = ModelConfig(
        vocab_size=64, d_model=128, n_layers=2, n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=256, copy_init=0.5
    )
    attention, read = built(config).model.layers[1].self_attn, torch.randn(16, 128)
    values = (read @ attention.v_proj.weight.T).unflatten(1, (n_kv_heads, 256))
    mixed = values.repeat_interleave(n_heads // n_kv_heads, dim=1).flatten(1)  # one position: nothing else to attend to
    handed_on = mixed @ attention.o_proj.weight.T
    share = (handed_on * read).sum() / (read * read).sum()
    assert abs(share.item() - 0.5) < 0.05


def test_attention_that_copies_changes_no_other_weight(tiny_config: Callable[..., ModelConfig]) -> None:
    before, after = built(tiny_config()).state_dict(), built(tiny_config(copy_init=1.0)).state_dict()
    changed = {name.rpartition(".self_attn.")[2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"v_proj.weight", "o_proj.weight"}


def test_a_seed_is_a_model(tiny_config: Callable[..., ModelConfig]) -> None:
    first, torch_seeded = built(tiny_config(), seed=3), built(tiny_config(), seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), torch_seeded.parameters(), strict=True))
    other = built(tiny_config(), seed=4)
    assert not torch.equal(first.head_weight, other.head_weight)
