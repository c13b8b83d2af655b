"""The router learns, capacity is a training matter, and what a token gets is what the formula says."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from cases import for_each

from alm.model.config import DualConfig
from alm.model.count import count
from alm.model.feedforward import LARGE, SMALL, DualFeedForward
from alm.model.transformer import Transformer

# fp32 sums in another order.
SAME = {"rtol": 1e-4, "atol": 1e-5}


def layer(**keys: object) -> DualFeedForward:
    made = DualFeedForward(DualConfig.model_validate({"small_hidden_size": 6, **keys}), 8, 12)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return made


def rows(count: int = 20) -> torch.Tensor:
    return torch.randn(2, count // 2, 8, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def slow(made: DualFeedForward, x: torch.Tensor, capacity: int | None) -> torch.Tensor:
    """One token after the other; the likeliest go to the large layer first."""
    flat = x.reshape(-1, 8)
    found = [(made.router(row) / made.config.temperature).softmax(-1) for row in flat]
    wanting = sorted((n for n, p in enumerate(found) if p[LARGE] > p[SMALL]), key=lambda n: -float(found[n][LARGE]))
    taken = set(wanting[:capacity])
    out = torch.zeros_like(flat)
    for n, (row, p) in enumerate(zip(flat, found, strict=True)):
        if n in taken:
            out[n] = 2 * p[LARGE] * made.large(row)
        elif n not in wanting or not made.config.drop_tokens:
            out[n] = 2 * p[SMALL] * made.small(row)
    return out.view(x.shape)


@for_each("drop_tokens", [False, True])
@for_each("factor", [0.1, 0.5, 1.0, 2.0])
def test_training_equals_the_slow_one(factor: float, drop_tokens: bool) -> None:
    made = layer(capacity_factor=factor, drop_tokens=drop_tokens, temperature=2.0)
    x = rows()
    torch.testing.assert_close(made(x), slow(made, x, math.ceil(factor * 10)), **SAME)


@pytest.mark.parametrize("drop_tokens", [False, True])
def test_outside_of_training_no_token_is_dropped_or_moved(drop_tokens: bool) -> None:
    made = layer(capacity_factor=0.1, drop_tokens=drop_tokens).eval()
    x = rows()
    torch.testing.assert_close(made(x), slow(made, x, None), **SAME)
    torch.testing.assert_close(made(x[:1, :1]), made(x)[:1, :1], **SAME)


def test_the_router_learns_from_the_loss_alone() -> None:
    made = layer(balance_weight=0.0, z_weight=0.0)
    made(rows()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in made.parameters())
    assert made.router.weight.grad is not None
    # Against differences in fp64, where no token changes its way.
    exact = layer(balance_weight=0.0, z_weight=0.0, capacity_factor=2.0).double()
    x = rows().double()
    exact(x).square().sum().backward()
    assert exact.router.weight.grad is not None
    gradient = exact.router.weight.grad[1, 3].item()
    with torch.no_grad():
        values = []
        for step in (1e-6, -1e-6):
            exact.router.weight[1, 3] += step
            values.append(exact(x).square().sum().item())
            exact.router.weight[1, 3] -= step
    assert gradient == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


def test_losses_are_those_of_the_papers() -> None:
    made = layer(balance_weight=1.0, z_weight=0.0)
    with torch.no_grad():
        made.router.weight.zero_()
    made(rows())
    assert made.auxiliary_loss is not None
    assert made.auxiliary_loss.item() == pytest.approx(1.0)  # even probabilities, whatever the shares
    assert made.entropy is not None
    assert made.entropy.item() == pytest.approx(math.log(2))
    uneven = layer(balance_weight=1.0, z_weight=0.0)
    x = rows()
    uneven(x)
    p = uneven.router(x.reshape(-1, 8)).softmax(-1)
    share = (p[:, LARGE] > p[:, SMALL]).float().mean()
    expected = 2 * ((1 - share) * p[:, SMALL].mean() + share * p[:, LARGE].mean())
    assert uneven.auxiliary_loss is not None
    torch.testing.assert_close(uneven.auxiliary_loss, expected)
    assert uneven.large_share == share
    only_z = layer(balance_weight=0.0, z_weight=0.5)
    only_z(x)
    assert only_z.auxiliary_loss is not None
    torch.testing.assert_close(
        only_z.auxiliary_loss, 0.5 * torch.logsumexp(only_z.router(x.reshape(-1, 8)), -1).square().mean()
    )


def test_parameters_are_counted_and_compile_to_one_graph(tiny_model: Callable[..., Transformer]) -> None:
    model = tiny_model(feedforward={"kind": "dual", "small_hidden_size": 16})
    counted = count(model.config)
    assert counted.total == sum(p.numel() for p in model.state_dict().values())
    assert counted.matmul < counted.attention + counted.feedforward + 61 * 32
    made = layer()
    explained = torch._dynamo.explain(made)(rows())
    assert explained.graph_break_count == 0


def test_the_model_gathers_what_its_layers_say(tiny_model: Callable[..., Transformer], ids: torch.Tensor) -> None:
    model = tiny_model(feedforward={"kind": "dual", "small_hidden_size": 16})
    assert model.auxiliary_loss() is None
    assert model.routing() == {}
    model.train()
    model(ids)
    loss = model.auxiliary_loss()
    assert loss is not None
    assert loss.requires_grad
    each = [layer.mlp.auxiliary_loss for layer in model.model.layers]
    torch.testing.assert_close(loss, each[0] + each[1])
    assert set(model.routing()) == {"routing_large_share", "routing_entropy"}
    assert tiny_model().train().auxiliary_loss() is None
