"""Orthogonalization against singular values, which torch computes by another way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from cases import for_each
from torch import Tensor

from alm.optim.optimizers._orthogonal import (
    NEWTON_SCHULZ,
    POLAR_EXPRESS,
    SAFETY,
    Method,
    Polynomial,
    orthogonalize,
    polynomials,
)

# fp32 against fp64; singular values down to 1e-5 of the largest lose digits in the Gram matrix.
FP32, FP32_ILL = 5e-5, 1e-3
# bf16 holds 8 bits, and errors of five steps add up.
BF16 = 0.1


def spectrum(values: Tensor, steps: Sequence[Polynomial]) -> Tensor:
    for a, b, c in steps:
        values = a * values + b * values**3 + c * values**5
    return values


def by_svd(matrix: Tensor, steps: Sequence[Polynomial]) -> Tensor:
    """The slow way, in fp64: the polynomials of the singular values alone."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    return u @ torch.diag(spectrum(s / (SAFETY * s.square().sum().sqrt()), steps)) @ v


def with_spectrum(rows: int, columns: int, values: Tensor) -> Tensor:
    draw = torch.Generator().manual_seed(rows * columns)
    u, _, v = torch.linalg.svd(torch.randn(rows, columns, generator=draw, dtype=torch.float64), full_matrices=False)
    return (u @ torch.diag(values.double()) @ v).float()


@for_each("method", ["polar_express", "newton_schulz"])
@for_each("steps", [1, 3, 5, 6, 8, 12])
@for_each("shape", [(8, 8), (16, 20), (8, 32), (1, 7), (24, 36)])
def test_singular_values_follow_the_polynomials(method: Method, steps: int, shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(steps))
    matrices *= torch.tensor([1e-4, 1.0, 1e4])[:, None, None]  # the scale is taken out
    found = orthogonalize(matrices, polynomials(method, steps))
    for matrix, made in zip(matrices, found, strict=True):
        assert torch.allclose(made.double(), by_svd(matrix, polynomials(method, steps)), atol=FP32)


@pytest.mark.parametrize("steps", [5, 12])
@pytest.mark.parametrize("shape", [(32, 32), (32, 96)])
def test_five_decades_of_singular_values_do_no_harm(steps: int, shape: tuple[int, int]) -> None:
    matrix = with_spectrum(*shape, torch.logspace(0, -5, 32))
    found = orthogonalize(matrix[None], polynomials("polar_express", steps))[0]
    assert torch.allclose(found.double(), by_svd(matrix, polynomials("polar_express", steps)), atol=FP32_ILL)


@pytest.mark.parametrize(("method", "steps", "low", "high"), [
    ("polar_express", 5, 0.84, 1.13),
    ("polar_express", 6, 0.99, 1.01),
    ("newton_schulz", 5, 0.47, 1.21),
])  # fmt: skip
def test_what_is_orthogonal_is_near_one(method: Method, steps: int, low: float, high: float) -> None:
    """Singular values from 1e-3 of the Frobenius norm on."""
    matrix = with_spectrum(24, 64, torch.linspace(2e-3, 1.0, 24) ** 2)
    values = torch.linalg.svdvals(matrix)
    values = values[values >= 1e-3 * 1.02 * matrix.norm()]
    found = torch.linalg.svdvals(orthogonalize(matrix[None], polynomials(method, steps))[0])[: len(values)]
    assert len(values) > 20
    assert low < float(found.min())
    assert float(found.max()) < high


def test_many_steps_reach_the_polar_factor() -> None:
    matrix = torch.randn(12, 30, generator=torch.Generator().manual_seed(3))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.allclose(orthogonalize(matrix[None], polynomials("polar_express", 10))[0], u @ v, atol=1e-5)


def test_each_polynomial_of_the_paper_is_the_best_of_its_interval() -> None:
    """Chebyshev: the best approximation of 1 errs equally, in turn, at the ends and where it turns.

    The first three are cushioned: best from a higher lower end on, and shifted, so the second turn errs less.
    """
    low, high = 1e-3, 1.0
    for number, (a, b, c) in enumerate(POLAR_EXPRESS):
        root = math.sqrt(9 * b * b - 20 * a * c)
        points = [low, *(math.sqrt((-3 * b + sign * root) / (10 * c)) for sign in (-1, 1)), high]
        errors = [a * x + b * x**3 + c * x**5 - 1.0 for x in points]
        size = -errors[0]
        assert points == sorted(points)
        assert errors[1] == pytest.approx(size, rel=1e-5)
        assert errors[3] == pytest.approx(size, rel=1e-5)
        assert errors[2] == pytest.approx(-size, rel=1e-5) if number >= 3 else -size < errors[2] < -0.75
        low, high = 1.0 - size, 1.0 + size
    assert high - low < 1e-8


def test_the_last_steps_are_those_that_converge() -> None:
    assert polynomials("polar_express", 9)[7:] == [(1.875, -1.25, 0.375)] * 2
    a, b, c = polynomials("polar_express", 1)[0]
    assert a + b / 4 + c / 16 == pytest.approx(spectrum(torch.tensor(0.5 / SAFETY), [POLAR_EXPRESS[0]]).item() * 2)
    assert polynomials("newton_schulz", 3) == [NEWTON_SCHULZ] * 3


@pytest.mark.parametrize("shape", [(5, 5), (5, 20)])
def test_zeros_stay_zeros(shape: tuple[int, int]) -> None:
    assert not orthogonalize(torch.zeros(2, *shape), polynomials("polar_express", 5)).any()


def test_bf16_is_near_fp32() -> None:
    matrices = torch.randn(2, 16, 48, generator=torch.Generator().manual_seed(4))
    steps = polynomials("polar_express", 5)
    found = orthogonalize(matrices, steps, dtype=torch.bfloat16)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), orthogonalize(matrices, steps), atol=BF16)
