from __future__ import annotations

import pytest
import torch

from alm.model.layers import RMSNorm

# fp32 sums of a few dozen terms, in another order.
FP32 = {"rtol": 1e-5, "atol": 1e-6}
# One rounding to bf16, 8 bits.
BF16 = {"rtol": 2**-8, "atol": 0.0}


def slow_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) / x.shape[-1] + eps) * weight


def make(width: int, dtype: torch.dtype = torch.float32) -> RMSNorm:
    norm = RMSNorm(width, eps=1e-6)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2.0, width))
    return norm.to(dtype)


def test_by_hand() -> None:
    norm = RMSNorm(2, eps=0.0)
    # mean square (9 + 16) / 2 = 12.5
    torch.testing.assert_close(norm(torch.tensor([3.0, 4.0])), torch.tensor([3.0, 4.0]) / 12.5**0.5)


@pytest.mark.parametrize("shape", [(5, 48), (2, 3, 4, 48)])
def test_value_and_gradients_equal_autograd_in_fp64(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    norm = make(shape[-1])
    x = torch.randn(shape, generator=generator).mul_(3).requires_grad_()
    upstream = torch.randn(shape, generator=generator)
    norm(x).backward(upstream)

    exact_x, exact_weight = x.detach().double().requires_grad_(), norm.weight.detach().double().requires_grad_()
    exact = slow_norm(exact_x, exact_weight, 1e-6)
    exact.backward(upstream.double())
    assert norm.weight.grad is not None
    torch.testing.assert_close(norm(x).double(), exact, **FP32)
    torch.testing.assert_close(x.grad.double(), exact_x.grad, **FP32)
    torch.testing.assert_close(norm.weight.grad.double(), exact_weight.grad, **FP32)


def test_an_expanded_gradient_is_enough() -> None:
    norm, x = make(8), torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    norm(x).sum().backward()
    exact = x.detach().double().requires_grad_()
    slow_norm(exact, norm.weight.detach().double(), 1e-6).sum().backward()
    torch.testing.assert_close(x.grad.double(), exact.grad, **FP32)


@pytest.mark.parametrize("weight_type", [torch.bfloat16, torch.float32])
def test_bf16_is_normalized_in_fp32(weight_type: torch.dtype) -> None:
    norm, x = make(64, weight_type), torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).bfloat16() * 1e4
    out = norm(x)
    assert out.dtype == torch.bfloat16
    expected = slow_norm(x.double(), norm.weight.detach().double(), 1e-6)
    torch.testing.assert_close(out.double(), expected, **BF16)


def test_training_and_inference_agree() -> None:
    norm, x = make(48), torch.randn(5, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        silent = norm(x)
    torch.testing.assert_close(norm(x), silent, **FP32)


def test_gradients_are_not_rounded_by_autocast_around_backward() -> None:
    x = torch.randn(5, 48, generator=torch.Generator().manual_seed(0))
    gradients = []
    for enabled in (False, True):
        leaf, norm = x.clone().requires_grad_(), make(48)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            norm(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)
