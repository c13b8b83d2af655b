from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from model_kinds import KINDS

from alm.model.transformer import Transformer

# fp32 sums of some fifty terms in another order (one row instead of many), through two blocks.
CACHED = {"rtol": 1e-4, "atol": 1e-5}
SHAPES = [{}, {"qk_norm": True, "n_kv_heads": 1}, {"n_kv_heads": 4}, *KINDS]


@torch.inference_mode()
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pieces", [[24], [1] * 24, [7] + [1] * 17, [7, 6, 1, 10], [1, 23]])
def test_cached_decoding_equals_the_full_forward(
    tiny_model: Callable[..., Transformer], ids: torch.Tensor, shape: dict[str, object], pieces: list[int]
) -> None:
    model = tiny_model(**shape)
    cache = model.new_cache(batch_size=3)
    parts = [model(piece, cache) for piece in ids.split(pieces, dim=1)]
    assert cache.length == 24
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), **CACHED)


@torch.inference_mode()
def test_the_memory_stays_where_it_is(tiny_model: Callable[..., Transformer], ids: torch.Tensor) -> None:
    model = tiny_model()
    cache = model.new_cache(batch_size=3, max_tokens=24)
    assert cache.layers[0].keys.shape == (3, 2, 24, 8)
    places = [layer.keys.data_ptr() for layer in cache.layers]
    for piece in ids.split(5, dim=1):
        model(piece, cache)
    assert [layer.keys.data_ptr() for layer in cache.layers] == places


@torch.inference_mode()
def test_a_full_cache_refuses(tiny_model: Callable[..., Transformer], ids: torch.Tensor) -> None:
    model = tiny_model()
    cache = model.new_cache(batch_size=3, max_tokens=20)
    model(ids[:, :20], cache)
    with pytest.raises(ValueError, match="20 \\+ 1 tokens do not fit in 20"):
        model(ids[:, 20:21], cache)
    assert cache.length == 20


@torch.inference_mode()
def test_a_cache_that_is_longer_than_the_model_refuses_too(tiny_model: Callable[..., Transformer]) -> None:
    model = tiny_model()
    cache = model.new_cache(max_tokens=100)
    with pytest.raises(ValueError, match="0 \\+ 41 tokens do not fit in 40"):
        model(torch.zeros(1, 41, dtype=torch.int64), cache)


def test_a_cache_has_its_own_padding(tiny_model: Callable[..., Transformer], ids: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="give it to `new_cache`"):
        tiny_model()(ids, tiny_model().new_cache(batch_size=3), padding=torch.tensor([0, 1, 2]))


@torch.inference_mode()
@pytest.mark.parametrize("shape", [{}, {"n_kv_heads": 4}, {"positions": "alibi"}])
def test_under_autocast_a_cache_is_of_its_type(
    tiny_model: Callable[..., Transformer], ids: torch.Tensor, shape: dict[str, object]
) -> None:
    model = tiny_model(**shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cache = model.new_cache(batch_size=3)
        assert cache.layers[0].keys.dtype == torch.bfloat16
        parts = [model(piece, cache) for piece in ids.split([9, 14, 1], dim=1)]
        whole = model(ids)
    # Two blocks in bf16, whose products differ by their order.
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=0.1 * whole.abs().max().item())
