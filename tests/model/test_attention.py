from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from alm.model.attention._grouped import attend
from alm.model.transformer import Transformer


def slow_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """One score at a time, in fp64: q (B, H, T, E), k and v (B, K, S, E)."""
    q, k, v = q.double(), k.double(), v.double()
    B, H, T, E = q.shape
    K, S = k.shape[1:3]
    out = torch.zeros(B, H, T, E, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            shared = h // (H // K)
            for t in range(T):
                seen = S - T + t + 1
                scores = [float(q[b, h, t] @ k[b, shared, s]) / math.sqrt(E) for s in range(seen)]
                total = sum(math.exp(score) for score in scores)
                for s, score in enumerate(scores):
                    out[b, h, t] += math.exp(score) / total * v[b, shared, s]
    return out


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize(("new", "seen"), [(5, 5), (1, 1), (1, 7), (3, 7)])
def test_equals_the_slow_one(kv_heads: int, new: int, seen: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 6, new, 8, generator=generator)
    k, v = torch.randn(2, 2, kv_heads, seen, 8, generator=generator)
    torch.testing.assert_close(attend(q, k, v).double(), slow_attention(q, k, v), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_group_of_heads_is_many_heads_with_the_same_keys(
    tiny_model: Callable[..., Transformer], ids: torch.Tensor, kv_heads: int
) -> None:
    model, full = tiny_model(n_kv_heads=kv_heads), tiny_model(n_kv_heads=4)
    weights = model.state_dict()
    for name in list(weights):
        if "k_proj" in name or "v_proj" in name:
            heads = weights[name].view(kv_heads, 8, 32)
            weights[name] = torch.cat([heads[h // (4 // kv_heads)] for h in range(4)])
    full.load_state_dict(weights)
    torch.testing.assert_close(model(ids), full(ids), rtol=1e-5, atol=1e-5)


def test_the_norm_of_queries_and_keys_comes_before_the_rotation(
    tiny_model: Callable[..., Transformer], ids: torch.Tensor
) -> None:
    model = tiny_model(qk_norm=True, n_layers=1)
    before = model(ids)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.mul_(8.0)  # what a norm after the projection undoes
    torch.testing.assert_close(model(ids), before, rtol=1e-4, atol=1e-4)
