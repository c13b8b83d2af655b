from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from alm.model.attention import grouped
from alm.model.attention._grouped import attend
from alm.model.positions._alibi import slopes_of
from alm.model.transformer import Transformer


def slow_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    slopes: list[float] | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """One score at a time, in fp64: q (B, H, T, E), k and v (B, K, S, E)."""
    q, k, v = q.double(), k.double(), v.double()
    B, H, T, E = q.shape
    K, S = k.shape[1:3]
    out = torch.zeros(B, H, T, E, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            shared = h // (H // K)
            for t in range(T):
                place = S - T + t
                seen = [s for s in range(place + 1) if window is None or place - s < window]
                falls = slopes[h] if slopes else 0.0
                scores = {s: float(q[b, h, t] @ k[b, shared, s]) / math.sqrt(E) - falls * (place - s) for s in seen}
                total = sum(math.exp(score) for score in scores.values())
                for s, score in scores.items():
                    out[b, h, t] += math.exp(score) / total * v[b, shared, s]
    return out


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize("has_slopes", [False, True])
@pytest.mark.parametrize(("new", "seen"), [(5, 5), (1, 1), (1, 7), (3, 7)])
def test_equals_the_slow_one(kv_heads: int, new: int, seen: int, window: int | None, has_slopes: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 6, new, 8, generator=generator)
    k, v = torch.randn(2, 2, kv_heads, seen, 8, generator=generator)
    slopes = slopes_of(6) if has_slopes else None
    found = attend(q, k, v, slopes=torch.tensor(slopes) if slopes else None, window=window)
    torch.testing.assert_close(found.double(), slow_attention(q, k, v, slopes, window), rtol=1e-5, atol=1e-6)


def test_slopes_are_those_of_the_paper() -> None:
    assert slopes_of(8) == [2.0**-n for n in range(1, 9)]
    assert slopes_of(16)[:2] == [2**-0.5, 2**-1]
    assert slopes_of(1) == [2.0**-8]
    assert slopes_of(6) == [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]  # those of 4, then every other one of 8


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_scores_fall_by_slope_times_distance_whatever_the_batch(batch: int) -> None:
    """With equal keys the weights are a softmax of the biases alone."""
    q, k = torch.zeros(batch, 4, 6, 8), torch.zeros(batch, 4, 6, 8)
    v = torch.eye(6, 8).expand(batch, 4, 6, 8)
    slopes = torch.tensor(slopes_of(4))
    weights = attend(q, k, v, slopes=slopes)[..., :6]  # (B, H, T, S)
    for head, slope in enumerate(slopes_of(4)):
        for token in range(6):
            falls = torch.tensor([-slope * (token - other) for other in range(token + 1)])
            torch.testing.assert_close(weights[:, head, token, : token + 1], falls.softmax(0).expand(batch, -1))
            assert (weights[:, head, token, token + 1 :] == 0).all()


def test_which_layers_have_a_window_and_what_that_saves() -> None:
    config = grouped.Config(window=4, full_every=3)
    assert [grouped.window_of(config, layer) for layer in range(6)] == [4, 4, None, 4, 4, None]
    assert [grouped.window_of(grouped.Config(window=4, full_every=0), layer) for layer in range(2)] == [4, 4]
    assert [grouped.window_of(grouped.Config(), layer) for layer in range(4)] == [None] * 4
    for tokens in (1, 3, 4, 5, 50):
        for layer in (0, 2):
            window = grouped.window_of(config, layer) or tokens
            expected = sum(min(token + 1, window) for token in range(tokens)) / tokens
            assert grouped.seen(config, tokens, layer) == pytest.approx(expected)


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
