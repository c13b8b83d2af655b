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
