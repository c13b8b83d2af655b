from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cases import for_each
from torch.nn.attention.flex_attention import flex_attention
from torch.utils._python_dispatch import TorchDispatchMode

from alm.model import attention
from alm.model.attention import MaskSpec, attend
from alm.model.config import GroupedConfig
from alm.model.positions import alibi_slopes
from alm.model.transformer import Transformer

# Sums of up to 150 terms in another order.
FP32 = {"rtol": 1e-5, "atol": 1e-6}
FP64 = {"rtol": 1e-10, "atol": 1e-12}


def slow_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    slopes: list[float] | None = None,
    window: int | None = None,
    documents: torch.Tensor | None = None,
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
                seen = [s for s in seen if documents is None or documents[b, s] == documents[b, place]]
                falls = slopes[h] if slopes else 0.0
                scores = {s: float(q[b, h, t] @ k[b, shared, s]) / math.sqrt(E) - falls * (place - s) for s in seen}
                total = sum(math.exp(score) for score in scores.values())
                for s, score in scores.items():
                    out[b, h, t] += math.exp(score) / total * v[b, shared, s]
    return out


@for_each("kv_heads", [1, 2, 6])
@for_each("window", [None, 1, 3, 100])
@for_each("has_slopes", [False, True])
@for_each("new, seen", [(5, 5), (1, 1), (1, 7), (3, 7)])
def test_equals_the_slow_one(kv_heads: int, new: int, seen: int, window: int | None, has_slopes: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 6, new, 8, generator=generator)
    k, v = torch.randn(2, 2, kv_heads, seen, 8, generator=generator)
    slopes = alibi_slopes(6) if has_slopes else None
    rules = MaskSpec(torch.tensor(slopes) if slopes else None, window)
    torch.testing.assert_close(attend(q, k, v, rules).double(), slow_attention(q, k, v, slopes, window), **FP32)


@for_each("window", [None, 3])
@for_each("has_slopes", [False, True])
@pytest.mark.parametrize(("new", "seen"), [(7, 7), (1, 7), (3, 7)])
def test_documents_do_not_see_each_other(new: int, seen: int, window: int | None, has_slopes: bool) -> None:
    q, k, v = qkv(kv_heads=2, new=new, seen=seen)
    documents = torch.tensor([[0, 0, 1, 1, 1, 2, 2], [-1, -1, -1, 0, 0, 0, 0]], dtype=torch.int32)
    slopes = alibi_slopes(6) if has_slopes else None
    rules = MaskSpec(torch.tensor(slopes) if slopes else None, window, documents)
    expected = slow_attention(q, k, v, slopes, window, documents)
    torch.testing.assert_close(attend(q, k, v, rules).double(), expected, **FP32)


def qkv(*, kv_heads: int, new: int, seen: int, width: int = 8) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 6, new, width, generator=generator)
    return q, *torch.randn(2, 2, kv_heads, seen, width, generator=generator)


RULES = [
    MaskSpec(),
    MaskSpec(slopes=torch.tensor(alibi_slopes(6))),
    MaskSpec(window=1),
    MaskSpec(window=70),
    MaskSpec(window=100, slopes=torch.tensor(alibi_slopes(6))),
    MaskSpec(documents=torch.arange(150).repeat(2, 1) // 40),
    MaskSpec(torch.tensor(alibi_slopes(6)), 50, torch.stack([torch.arange(150) // 33, torch.arange(150) // 100])),
]


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rules: MaskSpec) -> torch.Tensor:
    """All scores at once, and autograd."""
    new, seen = q.shape[2], k.shape[2]
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    reach = seen if rules.window is None else rules.window
    distances = torch.tensor([[seen - new + t - s for s in range(seen)] for t in range(new)])
    sees = ((distances >= 0) & (distances < reach)).expand(len(q), 1, new, seen)
    if rules.documents is not None:
        rows = rules.documents.tolist()
        same = [[[row[seen - new + t] == row[s] for s in range(seen)] for t in range(new)] for row in rows]
        sees = sees & torch.tensor(same)[:, None]
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
    if rules.slopes is not None:
        scores = scores - rules.slopes.double()[:, None, None] * distances
    return scores.masked_fill(~sees, -torch.inf).softmax(-1) @ v


@for_each("rules", RULES)
@for_each("kv_heads, new", [(1, 150), (2, 150), (6, 150), (2, 90)])
def test_blocks_and_their_gradients_equal_plain_autograd(rules: MaskSpec, kv_heads: int, new: int) -> None:
    """Three blocks of 64, the last not full; or 90 tokens after 60 others."""
    tensors = [x.double().requires_grad_() for x in qkv(kv_heads=kv_heads, new=new, seen=150)]
    upstream = torch.randn(2, new, 6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).transpose(
        1, 2
    )
    found, expected = attend(*tensors, rules), plain_attention(*tensors, rules)
    torch.testing.assert_close(found, expected, **FP64)
    with torch.no_grad():
        assert torch.equal(attend(*tensors, rules), found)
    ours, theirs = (torch.autograd.grad(out, tensors, upstream) for out in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **FP64)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("new", [150, 90])
def test_masks_equal_blocks(rules: MaskSpec, new: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other devices do, on this one."""
    q, k, v = qkv(kv_heads=2, new=new, seen=150)
    expected = attend(q, k, v, rules)
    monkeypatch.setattr(attention, "_is_blocked", lambda q: False)
    torch.testing.assert_close(attend(q, k, v, rules), expected, **FP32)


WAYS: list[tuple[str, torch.dtype, MaskSpec, int, int, str]] = [
    ("cpu", torch.float32, MaskSpec(), 1, 80, "blocks"),
    ("cpu", torch.float32, MaskSpec(), 3, 80, "causal"),
    ("cpu", torch.float32, MaskSpec(window=5), 3, 80, "blocks"),
    ("cpu", torch.bfloat16, MaskSpec(window=5), 3, 80, "mask"),
    ("cpu", torch.bfloat16, MaskSpec(), 1, 80, "causal"),
    ("cpu", torch.float32, MaskSpec(), 1, 1, "mask"),
    ("cuda", torch.float32, MaskSpec(), 1, 80, "causal"),
    ("cuda", torch.bfloat16, MaskSpec(window=5), 1, 80, "mask"),
    ("cuda", torch.bfloat16, MaskSpec(window=5), 1, 128, "flex"),
    ("cuda", torch.bfloat16, MaskSpec(window=5), 1, 7, "mask"),
    ("mps", torch.float32, MaskSpec(), 1, 80, "causal"),
    ("mps", torch.float32, MaskSpec(window=5), 1, 80, "mask"),
]


def taken(device: str, dtype: torch.dtype, q: torch.Tensor, k: torch.Tensor, rules: MaskSpec) -> str:
    """The way that `q`, as if it were on the device, goes."""
    on: Any = SimpleNamespace(shape=q.shape, dtype=dtype, device=torch.device(device))
    return attention.kernel_for(on, k, rules)


@for_each("device, dtype, rules, kv_heads, new, wanted", WAYS)
def test_each_device_takes_its_own_way(
    device: str, dtype: torch.dtype, rules: MaskSpec, kv_heads: int, new: int, wanted: str
) -> None:
    """The table in docs/architecture.md, of six query heads, and 80 tokens if there are not more new ones."""
    q, k, _ = qkv(kv_heads=kv_heads, new=new, seen=max(new, 80), width=16)
    assert taken(device, dtype, q, k, rules) == wanted


def test_heads_too_narrow_for_flex_attention_take_a_mask() -> None:
    for width, wanted in ((8, "mask"), (15, "mask"), (16, "flex")):
        q, k, _ = qkv(kv_heads=1, new=256, seen=256, width=width)
        assert taken("cuda", torch.bfloat16, q, k, MaskSpec(window=5)) == wanted


@pytest.mark.sampled(3)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("rules", RULES)
def test_flex_equals_blocks(rules: MaskSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask and the scores that a GPU is given, in FlexAttention's plain form, which on a CPU goes only forward."""
    monkeypatch.setattr(attention, "_compiled", lambda: flex_attention)
    tensors = qkv(kv_heads=2, new=150, seen=150, width=16)
    masks: dict[int | None, object] = {}
    torch.testing.assert_close(attention.attend_flex(*tensors, rules, masks), attend(*tensors, rules), **FP32)
    assert list(masks) == [rules.window]


def test_layers_share_masks_by_window(tiny_model: Callable[..., Transformer], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where making one takes time."""
    seen: list[tuple[int, int | None]] = []

    def attend_flex(q: Any, k: Any, v: Any, rules: MaskSpec, masks: dict[int | None, object]) -> torch.Tensor:
        seen.append((id(masks), rules.window))
        return q

    monkeypatch.setattr(attention, "attend_flex", attend_flex)
    monkeypatch.setattr(attention, "_is_blocked", lambda q: False)
    monkeypatch.setattr(attention, "_has_flex", lambda q: True)
    monkeypatch.setattr(attention, "FLEX_TOKENS", 2)
    monkeypatch.setattr(attention, "FLEX_WIDTH", 1)
    model = tiny_model(n_layers=4, attention={"kind": "grouped", "window": 5, "full_every": 2, "document_mask": True})
    model(torch.ones(1, 12, dtype=torch.int64))
    assert len({masks for masks, _ in seen}) == 1
    assert [window for _, window in seen] == [5, None, 5, None]


def test_no_table_of_tokens_by_tokens_on_a_cpu() -> None:
    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            largest[0] = max(largest[0], out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    q, k, v = (x.requires_grad_() for x in qkv(kv_heads=6, new=1024, seen=1024))
    with Watch():
        attend(q, k, v, MaskSpec(torch.tensor(alibi_slopes(6)), 100, torch.zeros(2, 1024))).sum().backward()
    assert largest[0] == 2 * 6 * 64 * 163  # a block's scores: its window reaches 99 tokens back


def test_slopes_are_those_of_the_paper() -> None:
    assert alibi_slopes(8) == [2.0**-n for n in range(1, 9)]
    assert alibi_slopes(16)[:2] == [2**-0.5, 2**-1]
    assert alibi_slopes(1) == [2.0**-8]
    assert alibi_slopes(6) == [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]  # those of 4, then every other one of 8


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_scores_fall_by_slope_times_distance_whatever_the_batch(batch: int) -> None:
    """With equal keys the weights are a softmax of the biases alone."""
    q, k = torch.zeros(batch, 4, 6, 8), torch.zeros(batch, 4, 6, 8)
    v = torch.eye(6, 8).expand(batch, 4, 6, 8)
    slopes = torch.tensor(alibi_slopes(4))
    weights = attend(q, k, v, MaskSpec(slopes))[..., :6]  # (B, H, T, S)
    for head, slope in enumerate(alibi_slopes(4)):
        for token in range(6):
            falls = torch.tensor([-slope * (token - other) for other in range(token + 1)])
            torch.testing.assert_close(weights[:, head, token, : token + 1], falls.softmax(0).expand(batch, -1))
            assert (weights[:, head, token, token + 1 :] == 0).all()


def test_which_layers_have_a_window_and_what_that_saves() -> None:
    config = GroupedConfig(window=4, full_every=3)
    assert [config.window_of(layer) for layer in range(6)] == [4, 4, None, 4, 4, None]
    assert [GroupedConfig(window=4, full_every=0).window_of(layer) for layer in range(2)] == [4, 4]
    assert [GroupedConfig().window_of(layer) for layer in range(4)] == [None] * 4
    for tokens in (1, 3, 4, 5, 50):
        for layer in (0, 2):
            window = config.window_of(layer) or tokens
            expected = sum(min(token + 1, window) for token in range(tokens)) / tokens
            assert config.attended(tokens, layer) == pytest.approx(expected)


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
