from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from live import Live
from model_kinds import EXTRAS
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from alm import device
from alm.errors import ConfigError
from alm.model.config import ModelConfig
from alm.model.count import chunk_rows, count
from alm.model.transformer import Transformer

# What is left out: small vectors, indices, and what a kernel needs for itself.
MEMORY = 0.08


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"qk_norm": True},
        {"tie_embeddings": False, "n_kv_heads": 1},
        {"n_layers": 3, "n_kv_heads": 4},
        {"head_dim": 14, "qk_norm": True},
        {"attention": {"kind": "grouped", "bias": "qkv"}, "n_kv_heads": 1},
        {"attention": {"kind": "grouped", "bias": "qkvo"}, "head_dim": 14},
        EXTRAS,
    ],
)
def test_equals_the_parameters_of_the_model(tiny_config: Callable[..., ModelConfig], shape: dict[str, object]) -> None:
    config = tiny_config(**shape)
    counted, sizes = count(config), {n: p.numel() for n, p in Transformer(config).state_dict().items()}

    def size_of(part: str) -> int:
        return sum(size for name, size in sizes.items() if part in name)

    assert counted.total == sum(sizes.values())
    assert counted.embedding == size_of("embed_tokens")
    assert counted.head == size_of("lm_head")
    assert counted.extras == size_of("scale") + size_of("smear") + size_of(".bias")
    assert counted.feedforward == size_of(".mlp.")
    assert counted.norms == size_of("norm")
    assert counted.attention == size_of("_proj.weight") - size_of(".mlp.")


@pytest.mark.parametrize("head_dim", ["auto", 14])
def test_flops_equal_those_that_pytorch_counts(tiny_config: Callable[..., ModelConfig], head_dim: str | int) -> None:
    """PyTorch counts every pair of tokens, we count the causal half with its diagonal."""
    config, tokens = tiny_config(n_kv_heads=4, head_dim=head_dim), 16
    model = Transformer(config)
    # Only the plain form of attention is made of products that the counter knows on a CPU.
    plain = sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, plain, torch.no_grad():
        model.logits(model(torch.zeros(1, tokens, dtype=torch.int64)))
    pairs_left_out = tokens * (tokens - 1) // 2
    width = 32 if head_dim == "auto" else 4 * 14
    left_out = 2 * 2 * config.n_layers * width * pairs_left_out
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


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"n_layers": 3, "d_model": 64},
        {"qk_norm": True},
        {"feedforward": "relu2"},
        {"head_dim": 20},
        {"attention": {"kind": "grouped", "bias": "qkvo"}},
        EXTRAS,
    ],
)
def test_activations_are_those_that_autograd_keeps(
    tiny_config: Callable[..., ModelConfig], shape: dict[str, object]
) -> None:
    config = tiny_config(**shape)
    kept, counted = kept_bytes(Transformer(config).train(), 2, 32), count(config).activation_bytes(2, 32)
    assert counted == kept


@pytest.mark.parametrize("shape", [{}, {"qk_norm": True}, {"n_kv_heads": 4}])
def test_activations_under_autocast_and_with_dropout(
    tiny_config: Callable[..., ModelConfig], shape: dict[str, object]
) -> None:
    """In bf16 to a few numbers a token: sums of norms, and what a norm of heads casts for itself."""
    config = tiny_config(d_model=128, ffn_hidden_size=512, **shape)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        kept = kept_bytes(Transformer(config).train(), 2, 32)
    weights = 2 * sum(p.numel() for p in Transformer(config).model.layers.parameters() if p.dim() > 1)
    counted = count(config).activation_bytes(2, 32, precision="bf16")
    assert kept - weights == pytest.approx(counted, rel=0.05)
    dropping = tiny_config(dropout=0.5)
    assert kept_bytes(Transformer(dropping).train(), 2, 32) == count(dropping).activation_bytes(2, 32)


@pytest.mark.parametrize("capacity_factor", [1.0, 1.5])
def test_activations_of_routed_layers(tiny_config: Callable[..., ModelConfig], capacity_factor: float) -> None:
    """All but what the router keeps, some twenty numbers a token."""
    kind = {"kind": "dual", "small_hidden_size": 64, "capacity_factor": capacity_factor}
    config = tiny_config(feedforward=kind, d_model=256, ffn_hidden_size=512)
    kept, counted = kept_bytes(Transformer(config).train(), 2, 32), count(config).activation_bytes(2, 32)
    assert counted <= kept <= counted + 2 * 32 * config.n_layers * 4 * 20


def kept_bytes(model: Transformer, sequences: int, tokens: int) -> int:
    """Bytes of all memory that a forward pass leaves for the backward pass, each piece once, without weights."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    found: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage
        return tensor

    ids = torch.zeros(sequences, tokens, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model(ids)
    assert hidden.requires_grad
    return sum(storage.nbytes() for storage in found.values())


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("sequences", "tokens", "micro_batches"), [(1, 64, 1), (4, 128, 2)])
@pytest.mark.parametrize(
    ("precision", "shape"),
    [
        ("fp32", {"d_model": 128, "ffn_hidden_size": 512, "n_heads": 2, "n_kv_heads": 1, "vocab_size": 4096}),
        ("fp32", {"d_model": 128, "ffn_hidden_size": 352, "vocab_size": 8192, "tie_embeddings": False}),
        ("fp32", {"d_model": 64, "ffn_hidden_size": 192, "n_layers": 5, "vocab_size": 512}),
        ("bf16", {"d_model": 64, "ffn_hidden_size": 192, "n_layers": 5, "vocab_size": 512}),
        ("fp16", {"d_model": 64, "ffn_hidden_size": 192, "n_layers": 5, "vocab_size": 512}),
    ],
)
def test_memory_is_that_of_a_step(
    tiny_config: Callable[..., ModelConfig],
    precision: Any,
    shape: dict[str, object],
    sequences: int,
    tokens: int,
    micro_batches: int,
) -> None:
    config = tiny_config(max_position_embeddings=256, **shape)
    model = Transformer(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.zeros(sequences, tokens, dtype=torch.int64)
    with Live(model.parameters()) as live:
        for _ in range(2):
            optimizer.zero_grad()
            for _ in range(micro_batches):
                with device.autocast(torch.device("cpu"), precision):
                    loss = model.losses(model(ids), ids).total
                loss.backward()
            optimizer.step()
    counted = count(config).memory(sequences, tokens, precision=precision, accumulates=micro_batches > 1)
    assert live.most == pytest.approx(counted.total, rel=MEMORY)


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_memory_of_a_vocabulary_far_larger_than_the_layers(
    tiny_config: Callable[..., ModelConfig], tie_embeddings: bool
) -> None:
    config = tiny_config(d_model=64, vocab_size=151_936, tie_embeddings=tie_embeddings, max_position_embeddings=256)
    model = Transformer(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.zeros(1, 256, dtype=torch.int64)
    with Live(model.parameters()) as live:
        model.losses(model(ids), ids).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert model.losses(model(ids), ids).total > 0  # the peak: the logits of a chunk beside the moments
    assert live.most == pytest.approx(count(config).memory(1, 256).total, rel=MEMORY)


def test_memory_by_part(tiny_config: Callable[..., ModelConfig]) -> None:
    config = tiny_config(vocab_size=64)
    counted = count(config)
    few, many = counted.memory(1, 8), counted.memory(64, 40)
    assert (few.weights, few.optimizer) == (4 * counted.total, 8 * counted.total)
    assert few.gradients == 4 * (counted.total + 64 * 32)  # when all are there, and the table's a second time
    assert many.gradients == 4 * 64 * 32  # when the backward pass begins: the head's
    assert many.activations == counted.activation_bytes(64, 40)
    assert many.total == many.weights + many.optimizer + many.gradients + many.activations + many.temporary
    assert chunk_rows(10**6, 32000, on_gpu=True) == 4096
    assert chunk_rows(10**6, 32000, on_gpu=False) == 256
    assert (chunk_rows(10**6, 512, on_gpu=False), chunk_rows(7, 512, on_gpu=False)) == (2048, 7)
