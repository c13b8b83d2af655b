"""Kind `muon` against slow references, torch's own Muon and torch's own AdamW."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from builders import run_config
from cases import for_each
from torch import Tensor, nn

from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.optim.groups import PEAK_LR, roles
from alm.optim.optimizers import _muon, muon
from alm.optim.optimizers._muon import Muon, matrix_group, shape_scale
from alm.optim.optimizers._orthogonal import polynomials

# fp32 against fp64 through five polynomials.
FP32 = 2e-5
STEPS = 4


class Small(nn.Module):
    """Every role that a parameter can have, some matrices lying, some standing, some alike."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(1)
        for name, shape in {
            "up": (12, 4),
            "gate": (12, 4),
            "down": (4, 12),
            "q": (6, 6),
            "k": (3, 6),
            "embed_tokens": (9, 6),
            "lm_head": (9, 6),
            "norm": (6,),
        }.items():
            layer = nn.Module()
            layer.weight = nn.Parameter(torch.randn(shape, generator=draw))
            self.add_module(name, layer)
        self.x0_scale = nn.Parameter(torch.tensor(0.5))
        self.smear = nn.Parameter(torch.randn(5, generator=draw))

    def matrices(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.named_parameters() if n.split(".")[0] in ("up", "gate", "down", "q", "k")}


def gradients(model: nn.Module, *, steps: int = STEPS) -> Iterator[None]:
    """Puts drawn gradients into the parameters, the same each time."""
    draw = torch.Generator().manual_seed(7)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        yield


def follow(model: nn.Module, optimizer: torch.optim.Optimizer, *, steps: int = STEPS) -> None:
    for number, _ in enumerate(gradients(model, steps=steps)):
        for group in optimizer.param_groups:
            group["lr"] = group[PEAK_LR] * (number + 1) / steps
        optimizer.step()


def reference(weight: Tensor, grads: list[Tensor], config: muon.Config) -> Tensor:
    """One matrix through SVDs in fp64, as the paper's algorithm reads."""
    w, mean = weight.double(), torch.zeros_like(weight).double()
    rows, columns = weight.shape
    for number, gradient in enumerate(grads):
        lr = config.lr * (number + 1) / len(grads)
        mean = config.momentum * mean + (1 - config.momentum) * gradient.double()
        nesterov = config.momentum * mean + (1 - config.momentum) * gradient.double()
        u, s, v = torch.linalg.svd(nesterov, full_matrices=False)
        s = s / (1.01 * s.square().sum().sqrt())
        for a, b, c in polynomials(config.orthogonalization, config.steps):
            s = a * s + b * s**3 + c * s**5
        scale = (rows / columns) ** 0.5 if rows > columns else 1.0
        if config.scale == "rms":
            scale = 0.2 * max(rows, columns) ** 0.5
        w = w - lr * config.weight_decay * w - lr * scale * (u @ torch.diag(s) @ v)
    return w


@pytest.mark.parametrize("orthogonalization", ["polar_express", "newton_schulz"])
@pytest.mark.parametrize("scale", ["spectral", "rms"])
def test_matrices_follow_the_slow_reference(orthogonalization: str, scale: str) -> None:
    config = muon.Config(lr=0.1, weight_decay=0.3, orthogonalization=orthogonalization, scale=scale)
    model = Small()
    before = copy.deepcopy(model)
    follow(model, muon.build(config, model))
    for name, parameter in model.matrices().items():
        grads = [before.get_parameter(name).grad.clone() for _ in gradients(before)]  # type: ignore[union-attr]
        expected = reference(before.get_parameter(name).detach(), grads, config)
        assert torch.allclose(parameter.detach().double(), expected, atol=FP32), name


def test_the_first_update_by_hand() -> None:
    layer = nn.Module()
    layer.weight = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    config = muon.Config(lr=0.1, momentum=0.5, weight_decay=0.5, steps=10)
    optimizer = muon.build(config, layer)
    layer.weight.grad = torch.tensor([[0.0, 3.0], [-4.0, 0.0], [0.0, 0.0]])
    optimizer.step()
    # Orthogonal: the signs alone, whatever the sizes; times sqrt(3 / 2), and 0.05 of the weight goes.
    moved = 0.1 * math.sqrt(3 / 2)
    expected = torch.tensor([[0.95, -moved], [moved, 0.95], [0.0, 0.0]])
    assert torch.allclose(layer.weight.detach(), expected, atol=1e-5)


@pytest.mark.parametrize(("scale", "adjustment"), [("spectral", "original"), ("rms", "match_rms_adamw")])
def test_matrices_follow_the_muon_of_torch(monkeypatch: pytest.MonkeyPatch, scale: str, adjustment: str) -> None:
    monkeypatch.setattr(Tensor, "bfloat16", Tensor.clone)  # torch's computes in bf16 alone
    monkeypatch.setattr("alm.optim.optimizers._orthogonal.SAFETY", 1.0)  # and leaves no margin
    ours, theirs = Small(), Small()
    config = muon.Config(lr=0.1, orthogonalization="newton_schulz", weight_decay=0.2, scale=scale)
    follow(ours, muon.build(config, ours))
    torchs = torch.optim.Muon(theirs.matrices().values(), lr=0.1, weight_decay=0.2, adjust_lr_fn=adjustment)
    for group in torchs.param_groups:
        group[PEAK_LR] = 0.1
    follow(theirs, torchs)
    for name, parameter in ours.matrices().items():
        assert torch.allclose(parameter, theirs.matrices()[name], atol=FP32), name


def test_all_else_follows_the_adamw_of_torch_to_the_bit() -> None:
    ours, theirs = Small(), Small()
    config = muon.Config(embedding_lr=0.3, head_lr=0.2, gain_lr=0.1, scalar_lr=0.05, betas=(0.8, 0.9), eps=1e-6)
    rates = {"embed_tokens.weight": 0.3, "lm_head.weight": 0.2, "norm.weight": 0.1, "x0_scale": 0.05, "smear": 0.05}
    follow(ours, muon.build(config, ours))
    groups = [{"params": [theirs.get_parameter(name)], "lr": lr, PEAK_LR: lr} for name, lr in rates.items()]
    follow(theirs, torch.optim.AdamW(groups, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.0, fused=True))
    for name in rates:
        assert torch.equal(ours.get_parameter(name), theirs.get_parameter(name)), name


def test_rates_that_are_absent_are_those_beside_them() -> None:
    groups = muon.build(muon.Config(lr=0.4, embedding_lr=0.3, gain_lr=0.1), Small()).param_groups
    assert [group[PEAK_LR] for group in groups] == [0.4, 0.3, 0.3, 0.1, 0.1]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.0, 0.0, 0.0]


@for_each("width, rate", [(16, 0.05), (64, 0.05), (128, 0.03), (384, 0.01), (768, 0.005)])
def test_the_rate_of_a_table_falls_with_its_width_unless_it_is_given(width: int, rate: float) -> None:
    model = nn.Module()
    model.embed_tokens = nn.Embedding(9, width)
    model.q_proj = nn.Linear(width, 4, bias=False)
    found = muon.build(muon.Config(), model).param_groups
    assert [group[PEAK_LR] for group in found] == pytest.approx([0.02, rate])
    assert muon.build(muon.Config(embedding_lr=0.3), model).param_groups[1][PEAK_LR] == 0.3


def test_what_is_not_finite_is_left_out_on_the_device_to_the_bit() -> None:
    """As `train_step` asks on a GPU, where reading the answer would wait for it."""
    asked, plain = Small(), Small()
    ours, theirs = muon.build(muon.Config(), asked), muon.build(muon.Config(), plain)
    assert ours._step_supports_amp_scaling  # type: ignore[attr-defined]
    for number, broken in enumerate([0.0, 1.0, 0.0, 1.0, 1.0, 0.0]):
        draw = torch.Generator().manual_seed(number)
        for parameter, other in zip(asked.parameters(), plain.parameters(), strict=True):
            gradient = torch.randn(parameter.shape, generator=draw)
            parameter.grad, other.grad = gradient * (float("nan") if broken else 1.0), gradient
        ours.found_inf, ours.grad_scale = torch.tensor(broken), None  # type: ignore[attr-defined]
        ours.step()
        if not broken:
            theirs.step()
        for name, weight in plain.named_parameters():
            assert torch.equal(asked.get_parameter(name), weight), (number, name)
            state, wanted = ours.state[asked.get_parameter(name)], theirs.state[weight]
            assert all(torch.equal(state[key], value) for key, value in wanted.items()), (number, name)


def test_every_parameter_has_one_role() -> None:
    found = roles(Small())
    assert [len(part) for part in vars(found).values()] == [5, 1, 1, 1, 2]
    tied = roles(Transformer(run_config(model__n_layers=2, model__vocab_size=50, model__qk_norm=True).model))
    assert (len(tied.embeddings), len(tied.head), len(tied.scalars)) == (1, 0, 0)
    assert len(tied.gains) == 2 * 4 + 1
    assert all(matrix.dim() == 2 for matrix in tied.matrices)


@pytest.mark.parametrize("feedforward", ["swiglu", "dual"])
def test_the_optimizer_updates_every_parameter(feedforward: str) -> None:
    config = run_config(model__vocab_size=50, model__tie_embeddings=False, model__feedforward=feedforward)
    model = Transformer(config.model)
    initialize(model, seed=1)
    before = [p.clone() for p in model.parameters()]
    optimizer = muon.build(muon.Config(), model)
    model.train()
    loss = model.logits(model(torch.arange(40).view(2, 20))).logsumexp(-1).sum()
    auxiliary = model.auxiliary_loss()
    (loss if auxiliary is None else loss + auxiliary).backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_parameters_without_gradient_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Small()
    optimizer = muon.build(muon.Config(), model)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), Small().parameters(), strict=True))
    assert not optimizer.state


def saved(optimizer: torch.optim.Optimizer) -> Any:  # Any: what torch.load gives
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_state_that_was_saved_goes_on_to_the_bit() -> None:
    whole, resumed = Small(), Small()
    optimizer, first = muon.build(muon.Config(), whole), muon.build(muon.Config(), resumed)
    follow(resumed, first)
    second = muon.build(muon.Config(), resumed)
    second.load_state_dict(saved(first))
    follow(resumed, second)
    follow(whole, optimizer)
    follow(whole, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    before, after = saved(optimizer), saved(second)
    assert before["param_groups"] == after["param_groups"]
    assert all(torch.equal(value, after["state"][n][k]) for n, s in before["state"].items() for k, value in s.items())


def test_small_stacks_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many matrices go into one product decides the speed alone."""
    whole, cut = Small(), Small()
    follow(whole, muon.build(muon.Config(), whole))
    monkeypatch.setattr("alm.optim.optimizers._muon._STACK_NUMBERS", {"cpu": 1})
    follow(cut, muon.build(muon.Config(), cut))
    assert all(torch.allclose(a, b, atol=FP32) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))


def test_alike_matrices_go_through_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    real = _muon.orthogonalize

    def counting(matrices: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        seen.append(tuple(matrices.shape))
        return real(matrices, *arguments, **keywords)

    monkeypatch.setattr(_muon, "orthogonalize", counting)
    model = Small()
    follow(model, muon.build(muon.Config(), model), steps=1)
    assert sorted(seen) == [(1, 3, 6), (1, 6, 6), (3, 4, 12)]


def test_what_is_no_matrix_is_refused() -> None:
    group = {"params": [nn.Parameter(torch.zeros(2, 2, 2))], "lr": 0.1, PEAK_LR: 0.1, "weight_decay": 0.0}
    with pytest.raises(ValueError, match="only matrices"):
        Muon([matrix_group(group, momentum=0.9, method="polar_express", steps=5, scale="rms")])


def test_the_scales_by_hand() -> None:
    assert [shape_scale(*shape, "spectral") for shape in ((8, 2), (2, 8), (3, 3))] == [2.0, 1.0, 1.0]
    assert shape_scale(100, 25, "rms") == shape_scale(25, 100, "rms") == pytest.approx(2.0)


def test_with_rms_an_update_is_as_large_as_adamws() -> None:
    """Orthonormal rows (R, C): entries have the root mean square 1 / sqrt(C)."""
    layer = nn.Linear(64, 16, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn(16, 64, generator=torch.Generator().manual_seed(2))
    muon.build(muon.Config(lr=0.1, weight_decay=0.0, steps=10, scale="rms"), layer).step()
    assert float((layer.weight.detach() - before).square().mean().sqrt()) == pytest.approx(0.1 * 0.2, rel=1e-4)


def test_a_closure_is_evaluated() -> None:
    layer = nn.Linear(2, 2, bias=False)
    optimizer = muon.build(muon.Config(), layer)

    def closure() -> float:
        loss = layer(torch.ones(2)).square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) > 0
