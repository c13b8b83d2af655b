from __future__ import annotations

import math

import pytest
import torch
from builders import run_config
from torch import nn

from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.optim.groups import PEAK_LR, parameter_groups
from alm.optim.optimizers import adamw
from alm.optim.schedules import cosine


def test_only_matrices_are_decayed() -> None:
    changes: dict[str, object] = {"model__attention": {"kind": "grouped", "bias": "qkvo"}, "model__qk_norm": True}
    model = Transformer(run_config(model__vocab_size=50, model__tie_embeddings=False, **changes).model)
    groups = parameter_groups(model, lr=0.1, embedding_lr=0.1, weight_decay=0.3)
    for group in groups:
        assert all((p.dim() == 2) == (group["weight_decay"] == 0.3) for p in group["params"])
    found = [id(p) for group in groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in model.parameters())


def test_embeddings_have_a_rate_of_their_own_and_then_no_decay() -> None:
    model = Transformer(run_config(model__vocab_size=50, model__tie_embeddings=False).model)
    matrices, tables, gains = parameter_groups(model, lr=0.1, embedding_lr=0.5, weight_decay=0.3)
    assert {id(p) for p in tables["params"]} == {id(model.model.embed_tokens.weight), id(model.lm_head.weight)}
    assert [group["lr"] for group in (matrices, tables, gains)] == [0.1, 0.5, 0.1]
    assert [group["weight_decay"] for group in (matrices, tables, gains)] == [0.3, 0.0, 0.0]


def test_scalars_have_a_rate_of_their_own_and_no_decay() -> None:
    model = Transformer(run_config(model__vocab_size=50).model)
    model.register_parameter("x0_scale", nn.Parameter(torch.tensor(0.5)))
    model.register_parameter("smear", nn.Parameter(torch.zeros(3)))
    for given, rate in ((0.02, 0.02), (None, 0.1)):
        optimizer = adamw.build(adamw.Config(lr=0.1, scalar_lr=given), model)
        *_, gains, scalars = optimizer.param_groups
        assert {id(p) for p in scalars["params"]} == {id(model.x0_scale), id(model.smear)}
        assert (scalars[PEAK_LR], scalars["weight_decay"]) == (rate, 0.0)
        assert gains[PEAK_LR] == 0.1


def test_one_update_is_that_of_the_paper() -> None:
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0]]))
    config = adamw.Config(lr=0.1, betas=(0.9, 0.95), weight_decay=0.5, eps=1e-8)
    optimizer = adamw.build(config, layer)
    layer.weight.grad = torch.tensor([[3.0, -4.0]])
    optimizer.step()
    # First step: both corrected moments give g / |g|, so w <- w - lr * decay * w - lr * sign(g).
    assert layer.weight.tolist()[0] == pytest.approx([1.0 - 0.05 - 0.1, -2.0 + 0.1 + 0.1], abs=1e-6)


def test_the_optimizer_updates_every_parameter() -> None:
    model = Transformer(run_config(model__vocab_size=50).model)
    initialize(model, seed=1)
    before = [p.clone() for p in model.parameters()]
    optimizer = adamw.build(adamw.Config(), model)
    model.logits(model(torch.arange(8)[None])).logsumexp(-1).sum().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_schedule_by_hand() -> None:
    config = cosine.Config(warmup_steps=4, final_fraction=0.1)
    factors = [cosine.factor(config, step, max_steps=12) for step in range(14)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[8] == pytest.approx(0.55)  # half way: the mean of 1 and 0.1
    assert factors[12] == factors[13] == pytest.approx(0.1)
    assert factors[6] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))


@pytest.mark.parametrize("warmup", [0, 1, 50])
def test_no_update_is_without_movement_and_none_above_the_peak(warmup: int) -> None:
    config = cosine.Config(warmup_steps=warmup, final_fraction=0.05)
    factors = [cosine.factor(config, step, max_steps=200) for step in range(200)]
    assert min(factors) > 0
    assert max(factors) == 1.0
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)


def test_a_fixed_total_ends_the_decay_early() -> None:
    config = cosine.Config(warmup_steps=0, total_steps=10, final_fraction=0.2)
    assert cosine.factor(config, 10, max_steps=100) == pytest.approx(0.2)
    assert cosine.factor(config, 99, max_steps=100) == pytest.approx(0.2)
