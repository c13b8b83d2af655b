"""Products of compiled kernels with matrices of numbers and of codes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from cases import for_each
from torch import Tensor

from alm.generation.backends import _kernels
from alm.quant.codes import Int4Matrix, Int8Matrix, Matrix, packed

WIDTHS = (32, 64, 96, 576, 1536)
ROWS = (1, 3, 8, 32)
# Activations are rounded to 2^16 levels of the largest in their group: each product is off by at most this share.
OF_ROUNDING = 1 / (2 * 32767)
OF_SUMS = 2e-6  # sums of 1,536 numbers in fp32, in another order


def int8(rows: int, width: int) -> Int8Matrix:
    """Codes that reach both ends, and a row whose scale is zero."""
    draw = torch.Generator().manual_seed(rows + width)
    codes = torch.randint(-127, 128, (rows, width), generator=draw, dtype=torch.int8)
    codes[0], codes[1] = 127, -127
    scales = torch.rand(rows, generator=draw).half()
    scales[2] = 0
    return Int8Matrix(codes, scales)


def int4(rows: int, width: int) -> Int4Matrix:
    """Codes that reach both ends, scales of both signs, and groups whose scale is zero."""
    draw = torch.Generator().manual_seed(rows + width)
    codes = torch.randint(-8, 8, (rows, width), generator=draw, dtype=torch.int8)
    codes[0], codes[1] = 7, -8
    scales = torch.randn(rows, width // 32, generator=draw).half()
    scales[2] = 0
    return Int4Matrix(packed(codes), scales)


def numbers(rows: int, width: int) -> Tensor:
    """Activations, some of which are a thousand times larger than the others of their group; one group has none."""
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(width))
    x[:, ::40] *= 1000
    x[0, :32] = 0
    return x


def product(matrix: Matrix, x: Tensor, *, threads: bool = False) -> Tensor:
    out = np.full((len(x), matrix.shape[0]), np.nan, dtype=np.float32)
    kernel = _kernels.multiply_codes_in_threads if threads else _kernels.multiply_codes
    before = torch.get_num_threads()
    kernel(matrix.codes.numpy(), matrix.scales.view(torch.int16).numpy(), x.numpy(), out)
    torch.set_num_threads(before)  # Numba sets the threads of OpenMP, which are PyTorch's too
    return torch.from_numpy(out)


def check(found: Tensor, weight: Tensor, x: Tensor, *, rounding: float) -> None:
    """Compare with fp64: what rounding of `x` may cost, and of sums."""
    weight, x = weight.double(), x.double()
    padded = torch.nn.functional.pad(x, (0, -x.shape[1] % 32))
    tops = padded.view(len(x), -1, 32).abs().amax(2).repeat_interleave(32, dim=1)[:, : x.shape[1]]
    allowed = rounding * tops @ weight.abs().T + OF_SUMS * x.abs() @ weight.abs().T
    assert ((found - x @ weight.T).abs() <= allowed).all()


@for_each("width", WIDTHS)
@pytest.mark.parametrize("make", [int8, int4])
def test_products_with_codes_are_those_with_their_values(make: type, width: int) -> None:
    matrix = make(37, width)
    for rows in ROWS:
        x = numbers(rows, width)
        check(product(matrix, x), matrix.dequantized(), x, rounding=OF_ROUNDING)


@for_each("width", (1, 7, 31, 33, 49, 100))
def test_products_with_int8_have_any_width(width: int) -> None:
    matrix, x = int8(5, width), numbers(4, width)
    check(product(matrix, x), matrix.dequantized(), x, rounding=OF_ROUNDING)


@for_each("width", (1, 7, 8, 36, 49, 1536))
def test_products_in_fp32(width: int) -> None:
    weight = torch.randn(13, width, generator=torch.Generator().manual_seed(1))
    for rows in ROWS:
        x, out = numbers(rows, width), np.empty((rows, 13), dtype=np.float32)
        _kernels.multiply(weight.numpy(), x.numpy(), out)
        check(torch.from_numpy(out), weight, x, rounding=0)


@pytest.mark.parametrize("matrix", [int8(37, 96), int8(5, 49), int4(37, 96)])
def test_a_product_with_codes_has_the_same_bits_alone_among_others_and_in_threads(matrix: Matrix) -> None:
    x = numbers(32, matrix.shape[1])
    together = product(matrix, x)
    for rows in (1, 2, 3, 8):
        parts = [product(matrix, part) for part in x.split(rows)]
        assert torch.equal(torch.cat(parts), together)
    assert torch.equal(product(matrix, x, threads=True), together)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("make", [int8, int4])
def test_activations_that_are_not_finite_are_not_rounded_away(make: type, value: float) -> None:
    x = numbers(2, 64)
    x[1, 40] = value
    found = product(make(8, 64), x)
    assert not found[1].isfinite().any()
    assert found[0].isfinite().all()


def test_tiny_activations_are_rounded_to_zero() -> None:
    x = torch.full((1, 32), 1e-40)
    assert (product(int8(4, 32), x) == 0).all()


def rounded(x: Tensor) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    found: tuple[npt.NDArray[np.int16], npt.NDArray[np.float32], npt.NDArray[np.int32]] = _kernels.rounded(x.numpy())
    return found


def test_activations_are_rounded_to_the_nearest_of_their_group() -> None:
    x = numbers(3, 100)
    codes, scales, sums = rounded(x)
    assert codes.shape == (3, 128)
    assert (codes[:, 100:] == 0).all()
    assert np.abs(codes).max() == 32767
    values = codes.reshape(3, 4, 32) * scales[:, :, None]
    assert np.abs(values.reshape(3, 128)[:, :100] - x.numpy()).max() <= 0.51 * scales.max()
    assert (sums == -codes.reshape(3, 4, 32).sum(2)).all()
