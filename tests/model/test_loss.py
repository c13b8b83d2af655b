from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from alm.model import loss
from alm.model.loss import losses, token_losses

# fp64 in another order of summation.
EXACT = {"rtol": 1e-12, "atol": 1e-12}
FP32 = {"rtol": 1e-5, "atol": 1e-5}


def cross_entropy_sum(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return losses(hidden, weight, targets).total


Triple = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """21 rows in chunks of 8: two full ones and a rest."""
    monkeypatch.setattr(loss, "chunk_rows", lambda rows, width, on_gpu: min(rows, 8))


def case(dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Triple:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 7, 16, generator=generator, dtype=torch.float64) * scale
    weight = torch.randn(50, 16, generator=generator, dtype=torch.float64)
    targets = torch.randint(50, (3, 7), generator=generator)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = (hidden @ weight.t()).flatten(0, 1)
    return F.cross_entropy(logits, targets.flatten(), reduction="none").view(targets.shape)


def gradients(function: Callable[..., torch.Tensor], triple: Triple) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(function(*triple).sum() * 0.37, triple[:2])


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_value_and_gradients_equal_the_plain_ones(scale: float) -> None:
    triple = case(scale=scale)
    torch.testing.assert_close(cross_entropy_sum(*triple), plain(*triple).sum(), **EXACT)
    for ours, theirs in zip(gradients(cross_entropy_sum, triple), gradients(plain, triple), strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


def test_each_token_equals_the_plain_one() -> None:
    triple = case()
    found = token_losses(*triple)
    assert not found.requires_grad
    torch.testing.assert_close(found, plain(*triple), **EXACT)
    assert token_losses(*case(torch.float32)).dtype == torch.float32


def test_a_token_without_a_target_counts_nothing() -> None:
    hidden, weight, targets = case()
    targets[1, 3:] = -1
    targets[2] = -1
    kept = targets >= 0

    def wanted(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return plain(hidden, weight, targets.clamp_min(0))[kept].sum()

    torch.testing.assert_close(cross_entropy_sum(hidden, weight, targets), wanted(hidden, weight, targets), **EXACT)
    triple = (hidden, weight, targets)
    for found, expected in zip(gradients(cross_entropy_sum, triple), gradients(wanted, triple), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)
    assert (token_losses(hidden, weight, targets)[~kept] == 0).all()


def test_certain_and_hopeless_tokens_stay_finite() -> None:
    hidden, weight = torch.tensor([[[1000.0], [1000.0]]]), torch.tensor([[1.0], [-1.0]])
    assert token_losses(hidden, weight, torch.tensor([[0, 1]])).tolist() == [[0.0, 2000.0]]


@pytest.mark.parametrize("frozen", [0, 1])
def test_only_wanted_gradients_are_made(frozen: int) -> None:
    triple = case()
    triple[frozen].requires_grad_(False)
    cross_entropy_sum(*triple).backward()
    assert triple[frozen].grad is None
    wanted = 1 - frozen
    expected = torch.autograd.grad(plain(*triple).sum(), triple[wanted])[0]
    torch.testing.assert_close(triple[wanted].grad, expected, **EXACT)


def test_without_gradients_none_are_made() -> None:
    triple = case(torch.float32)
    with torch.no_grad():
        total = cross_entropy_sum(*triple)
    assert not total.requires_grad
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, plain(*triple).sum(), **FP32)


@pytest.mark.parametrize("padding", [0, 14])
@pytest.mark.parametrize("z_weight", [0.0, 0.3])
def test_z_loss_divisor_and_rows_that_are_no_tokens(z_weight: float, padding: int) -> None:
    hidden, weight, targets = case()
    targets[1, 3:] = -1
    longer = torch.cat((weight.detach(), torch.ones(padding, 16, dtype=torch.float64))).requires_grad_()
    found = losses(hidden, longer, targets, vocab_size=50, divisor=7.0, z_weight=z_weight)
    kept = targets >= 0
    log_z = (hidden @ weight.t()).logsumexp(-1)[kept]
    nats = plain(hidden, weight, targets.clamp_min(0))[kept].sum() / 7
    total = nats + z_weight * log_z.square().sum() / 7
    torch.testing.assert_close(found.total, total, **EXACT)
    torch.testing.assert_close(found.nats, nats, **EXACT)
    assert not found.nats.requires_grad
    ours, theirs = torch.autograd.grad(found.total, (hidden, longer)), torch.autograd.grad(total, (hidden, weight))
    torch.testing.assert_close(ours[0], theirs[0], **EXACT)
    torch.testing.assert_close(ours[1][:50], theirs[1], **EXACT)
    assert (ours[1][50:] == 0).all()
    with torch.no_grad():
        again = losses(hidden, longer, targets, vocab_size=50, divisor=7.0, z_weight=z_weight)
    torch.testing.assert_close(again.total, total, **EXACT)
    torch.testing.assert_close(token_losses(hidden, longer, targets, vocab_size=50).sum() / 7, nats, **EXACT)


def test_backward_works_once() -> None:
    total = cross_entropy_sum(*case())
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward works once"):
        total.backward()


@pytest.mark.parametrize("hidden_type", [torch.float32, torch.bfloat16])
def test_autocast_multiplies_in_bf16_and_sums_in_fp32(hidden_type: torch.dtype) -> None:
    hidden, weight, targets = case(torch.float32)
    rounded = (hidden.detach().bfloat16().double(), weight.detach().bfloat16().double(), targets)
    triple = (hidden.detach().to(hidden_type).requires_grad_(), weight, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = cross_entropy_sum(*triple)
        each = token_losses(*triple)
    total.backward()
    assert total.dtype == each.dtype == torch.float32
    # Logits below 16 are rounded to 8 bits: 2^-5 each.
    torch.testing.assert_close(each.double(), plain(*rounded), rtol=0, atol=2**-4)
    torch.testing.assert_close(total, each.sum(), **FP32)
    assert triple[0].grad.dtype == hidden_type
    assert weight.grad.dtype == torch.float32
    exact = (rounded[0].requires_grad_(), rounded[1].requires_grad_(), targets)
    plain(*exact).sum().backward()
    torch.testing.assert_close(weight.grad.double(), exact[1].grad, rtol=0.05, atol=0.05)
    torch.testing.assert_close(triple[0].grad.double(), exact[0].grad, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("vocab_size", [300, 70_000])
def test_in_fp16_gradients_neither_overflow_nor_vanish(vocab_size: int) -> None:
    """With scores that are nearly alike the exponentials of a row sum to more than fp16 can hold."""
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, 6, 8, generator=draw).mul_(0.05).requires_grad_()
    weight = torch.randn(vocab_size, 8, generator=draw).requires_grad_()
    targets = torch.randint(vocab_size, (1, 6), generator=draw)
    with torch.autocast("cpu", dtype=torch.float16):
        total = losses(hidden, weight, targets, divisor=torch.tensor(6.0 / 1024)).total / 1024
    (total * 1024).backward()
    exact = tuple(tensor.detach().double().requires_grad_() for tensor in (hidden, weight))
    wanted = plain(*exact, targets).sum() / 6
    wanted.backward()
    assert total.item() == pytest.approx(wanted.item(), rel=1e-3)
    for ours, theirs in zip((hidden, weight), exact, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        error = (ours.grad.double() / 1024 - theirs.grad).norm() / theirs.grad.norm()
        assert error < 2e-3  # fp16 keeps 11 bits


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.elements = max(self.elements, out.numel())
        return out


def test_no_tensor_grows_with_tokens_times_vocabulary() -> None:
    weight = torch.randn(500, 4, requires_grad=True)
    sizes = []
    for tokens in (64, 640):
        hidden = torch.randn(1, tokens, 4, requires_grad=True)
        with LargestTensor() as watched:
            cross_entropy_sum(hidden, weight, torch.zeros(1, tokens, dtype=torch.int64)).backward()
        sizes.append(watched.elements)
    assert sizes == [8 * 500, 8 * 500]


@pytest.mark.parametrize("kept", [0, 1, 5, 19, 20, 21, 40])
def test_rows_without_a_target_count_nothing_however_few_have_one(kept: int) -> None:
    generator = torch.Generator().manual_seed(kept)
    hidden = torch.randn(2, 20, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(64, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 50, (40,), generator=generator)
    targets[torch.randperm(40, generator=generator)[kept:]] = -1
    targets = targets.view(2, 20)
    logits = (hidden @ weight.t())[..., :50]
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")
    found = token_losses(hidden, weight, targets, vocab_size=50)
    torch.testing.assert_close(found.flatten(), expected.detach(), **EXACT)
    ours = torch.autograd.grad(losses(hidden, weight, targets, vocab_size=50, divisor=3.0).total, (hidden, weight))
    theirs = torch.autograd.grad(expected.sum() / 3.0, (hidden, weight))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **EXACT)
