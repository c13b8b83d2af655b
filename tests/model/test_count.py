from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from model_kinds import EXTRAS
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from alm.errors import ConfigError
from alm.model.config import ModelConfig
from alm.model.count import count
from alm.model.transformer import Transformer


@pytest.mark.parametrize(
    "shape",
    [{}, {"qk_norm": True}, {"tie_embeddings": False, "n_kv_heads": 1}, {"n_layers": 3, "n_kv_heads": 4}, EXTRAS],
)
def test_equals_the_parameters_of_the_model(tiny_config: Callable[..., ModelConfig], shape: dict[str, object]) -> None:
    config = tiny_config(**shape)
    counted, sizes = count(config), {n: p.numel() for n, p in Transformer(config).state_dict().items()}

    def size_of(part: str) -> int:
        return sum(size for name, size in sizes.items() if part in name)

    assert counted.total == sum(sizes.values())
    assert counted.embedding == size_of("embed_tokens")
    assert counted.head == size_of("lm_head")
    assert counted.extras == size_of("scale") + size_of("smear")
    assert counted.feedforward == size_of(".mlp.")
    assert counted.norms == size_of("norm")
    assert counted.attention == size_of("self_attn") - size_of("q_norm") - size_of("k_norm") - size_of("value_scale")


def test_flops_equal_those_that_pytorch_counts(tiny_config: Callable[..., ModelConfig]) -> None:
    """PyTorch counts every pair of tokens, we count the causal half with its diagonal."""
    config, tokens = tiny_config(n_kv_heads=4), 16
    model = Transformer(config)
    # Only the plain form of attention is made of products that the counter knows on a CPU.
    plain = sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, plain, torch.no_grad():
        model.logits(model(torch.zeros(1, tokens, dtype=torch.int64)))
    pairs_left_out = tokens * (tokens - 1) // 2
    left_out = 2 * 2 * config.n_layers * config.d_model * pairs_left_out
    assert count(config).forward_flops_per_token(tokens) * tokens == counter.get_total_flops() - left_out


def test_pico_by_hand() -> None:
    pico = count(ModelConfig(vocab_size=32000))
    attention = 8 * (384 * 384 * 2 + 384 * 64 * 2)
    feedforward = 8 * 3 * 384 * 1536
    assert (pico.attention, pico.feedforward, pico.norms) == (attention, feedforward, 17 * 384)
    assert pico.matmul == attention + feedforward + 32000 * 384
    assert pico.forward_flops_per_token(1) == 2 * (pico.matmul + 2 * 8 * 384)
    assert pico.training_flops_per_token(1) == 3 * pico.forward_flops_per_token(1)


def test_an_unknown_vocabulary_cannot_be_counted() -> None:
    with pytest.raises(ConfigError):
        count(ModelConfig())
