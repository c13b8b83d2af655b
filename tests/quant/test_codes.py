"""Matrices of codes: their values as the library `gguf` reads the same bytes, and the error of rounding."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from cases import for_each
from torch import Tensor

from alm.errors import ArtifactError
from alm.quant import gptq
from alm.quant.codes import (
    GROUP,
    LARGEST_INT4,
    LARGEST_INT8,
    LEAST_INT4,
    Int4Matrix,
    best_scales,
    fits_int4,
    packed,
    to_int4,
    to_int8,
    unpacked,
)

ROWS, WIDTH = 24, 96
Kind = gguf.GGMLQuantizationType


def normal(seed: int = 0, rows: int = ROWS, width: int = WIDTH) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 0.05


def laplace(seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).laplace(size=(ROWS, WIDTH)).astype(np.float32))


# ---- against the library gguf ----------------------------------------------------------------------------------


def test_int4_is_q4_0() -> None:
    matrix = to_int4(normal())
    blocks = [
        matrix.scales[row, group].numpy().tobytes() + matrix.codes[row, group * 16 : group * 16 + 16].numpy().tobytes()
        for row in range(ROWS)
        for group in range(WIDTH // GROUP)
    ]
    theirs = gguf.quants.dequantize(np.frombuffer(b"".join(blocks), np.uint8).reshape(ROWS, -1), Kind.Q4_0)
    np.testing.assert_array_equal(matrix.dequantized().numpy(), theirs)


def test_int8_is_q8_0() -> None:
    matrix = to_int8(normal())
    blocks = [
        matrix.scales[row].numpy().tobytes() + matrix.codes[row, start : start + 32].numpy().tobytes()
        for row in range(ROWS)
        for start in range(0, WIDTH, 32)
    ]
    theirs = gguf.quants.dequantize(np.frombuffer(b"".join(blocks), np.uint8).reshape(ROWS, -1), Kind.Q8_0)
    np.testing.assert_array_equal(matrix.dequantized().numpy(), theirs)


@for_each("seed", range(20))
def test_scales_are_no_worse_than_those_of_q4_0(seed: int) -> None:
    weight = normal(seed) if seed % 2 else laplace(seed)
    importance = torch.rand(WIDTH, generator=torch.Generator().manual_seed(seed)) + 0.01
    theirs = gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), Kind.Q4_0), Kind.Q4_0)

    def errors(values: Tensor, factor: Tensor) -> Tensor:
        return (factor * (values - weight).square()).view(ROWS, -1, GROUP).sum(-1)

    for factor in (torch.ones(WIDTH), importance):
        ours = errors(to_int4(weight, factor).dequantized(), factor)
        # A scale is stored in fp16 either way, and ours is chosen after it is rounded.
        assert (ours <= errors(torch.from_numpy(theirs), factor) * (1 + 1e-3)).all()
        assert ours.sum() < errors(torch.from_numpy(theirs), factor).sum() * 0.95


# ---- laws ------------------------------------------------------------------------------------------------------


def test_packing_by_hand() -> None:
    codes = torch.arange(32) % 16 + LEAST_INT4
    (bytes_,) = packed(codes[None]).tolist()
    assert bytes_ == [
        n | n << 4 for n in range(16)
    ]  # code j is in the low half of byte j, code j + 16 in the high half
    codes = torch.zeros(1, 32)
    codes[0, 3], codes[0, 19] = -8, 7
    assert packed(codes)[0, 3] == 0xF0
    assert packed(codes)[0, 4] == 0x88


@for_each("seed", range(20))
def test_unpacking_undoes_packing(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(LEAST_INT4, LARGEST_INT4 + 1, (5, 32 * (seed % 4 + 1)), generator=draw)
    assert unpacked(packed(codes)).equal(codes.to(torch.int8))
    bytes_ = torch.randint(0, 256, (5, 16 * (seed % 4 + 1)), generator=draw, dtype=torch.uint8)
    assert packed(unpacked(bytes_)).equal(bytes_)


@for_each("seed", range(20))
def test_the_error_is_at_most_half_a_step(seed: int) -> None:
    weight = normal(seed)
    matrix = to_int8(weight)
    # The scale itself is rounded, to 11 bits, so the largest code may miss by a share of its value too.
    bound = matrix.scales.float()[:, None] / 2 + weight.abs() * 2**-11
    assert ((matrix.dequantized() - weight).abs() <= bound * (1 + 1e-5)).all()
    assert int(matrix.codes.min()) >= -LARGEST_INT8

    four = to_int4(weight)
    steps = four.scales.float().abs()[..., None].expand(-1, -1, GROUP).flatten(1)
    inside = unpacked(four.codes).abs() < LARGEST_INT4  # others may be beyond the last level
    assert ((four.dequantized() - weight).abs() <= steps / 2 * (1 + 1e-5))[inside].all()


@for_each("matrix", [to_int8(normal()), to_int4(normal())])
def test_some_rows_are_those_of_all(matrix: Int4Matrix) -> None:
    numbers = torch.tensor([[3, 0], [ROWS - 1, 3]])
    assert matrix.shape == (ROWS, WIDTH)
    assert matrix.rows(numbers).equal(matrix.dequantized()[numbers])


def test_rounding_twice_changes_nothing_more() -> None:
    for to in (to_int8, to_int4):
        once = to(normal()).dequantized()
        np.testing.assert_allclose(to(once).dequantized(), once, rtol=2**-10, atol=1e-9)


# ---- unusual values --------------------------------------------------------------------------------------------


@for_each("value", [0.0, 1e-9, -1e-9, 1e-30, 1e-45])
def test_values_below_those_of_fp16_are_zero(value: float) -> None:
    weight = normal()
    weight[3] = value
    weight[5, :GROUP] = value
    for to in (to_int8, to_int4):
        found = to(weight).dequantized()
        assert found.isfinite().all()
        assert not found[3].any()
        assert found[0].any()


def test_a_row_of_the_smallest_scale_is_not_far_off() -> None:
    """fp16 has few bits below 6e-5: a scale of 1.4 steps is one step there."""
    for to, levels in ((to_int8, LARGEST_INT8), (to_int4, -LEAST_INT4)):
        weight = normal() / normal().abs().max() * 1.4 * 2**-24 * levels
        assert (to(weight).dequantized() - weight).abs().max() <= 0.5 * 1.4 * 2**-24 * levels


@for_each("value", [1e7, -3e38, float("inf"), float("nan")])
def test_values_that_no_scale_can_hold(value: float) -> None:
    weight = normal()
    weight[2, 7] = value
    for to in (to_int8, to_int4):
        with pytest.raises(ArtifactError, match="beyond"):
            to(weight)


def test_the_largest_values_that_a_scale_can_hold() -> None:
    for to, levels in ((to_int8, LARGEST_INT8), (to_int4, -LEAST_INT4)):
        weight = normal()
        weight[2, 7] = -65504.0 * levels
        assert to(weight).dequantized()[2, 7] == weight[2, 7]


@for_each("width, fits", [(32, True), (96, True), (48, False), (1, False), (33, False)])
def test_widths(width: int, fits: bool) -> None:
    assert fits_int4((4, width)) == fits
    weight = normal(width=width)
    matrix = to_int8(weight)
    assert matrix.shape == weight.shape
    assert (matrix.dequantized() - weight).abs().max() < weight.abs().max() / 100


# ---- scales for the text ---------------------------------------------------------------------------------------


def correlated(width: int, tokens: int = 2000) -> Tensor:
    """Inputs in which a quarter of the directions have most of the size, as those of a network do."""
    draw = torch.Generator().manual_seed(7)
    mixed = torch.randn(width // 4, width, generator=draw)
    x = torch.randn(tokens, width // 4, generator=draw) @ mixed
    return x + 0.5 * torch.randn(tokens, width, generator=draw)


def output_error(x: Tensor, weight: Tensor, matrix: Int4Matrix) -> float:
    return ((x @ (matrix.dequantized() - weight).T).square().mean() / (x @ weight.T).square().mean()).item()


@for_each("seed", range(5))
def test_gptq_makes_the_error_of_the_outputs_smaller(seed: int) -> None:
    weight, x = normal(seed, rows=64, width=128), correlated(128)
    found = output_error(x, weight, gptq.to_int4(weight, x.T @ x))
    assert found < 0.7 * output_error(x, weight, to_int4(weight))
    assert found < 0.9 * output_error(x, weight, to_int4(weight, x.square().sum(0)))


def test_gptq_of_uncorrelated_inputs_is_plain_rounding() -> None:
    """No column can make up for the error of another."""
    weight, sizes = normal(), torch.rand(WIDTH, generator=torch.Generator().manual_seed(1)) + 0.1
    found, plain = gptq.to_int4(weight, torch.diag(sizes)), to_int4(weight, sizes)
    assert found.codes.equal(plain.codes)
    assert found.scales.equal(plain.scales)


def test_gptq_with_inputs_that_are_always_zero() -> None:
    weight, x = normal(), correlated(WIDTH)
    x[:, 40:70] = 0
    matrix = gptq.to_int4(weight, x.T @ x)
    assert matrix.dequantized().isfinite().all()
    assert output_error(x, weight, matrix) < 0.01
    assert gptq.to_int4(weight, torch.zeros(WIDTH, WIDTH)).dequantized().isfinite().all()


def test_gptq_leaves_its_arguments_alone() -> None:
    weight, x = normal(), correlated(WIDTH)
    x[:, 3] = 0
    moments = (x.T @ x).double()
    before = weight.clone(), moments.clone()
    gptq.to_int4(weight, moments)
    assert weight.equal(before[0])
    assert moments.equal(before[1])


def test_the_sign_of_a_scale_gives_the_lowest_level_to_the_largest_value() -> None:
    groups = torch.zeros(2, 1, GROUP)
    groups[0, 0, 5], groups[1, 0, 5] = 8.0, -8.0
    assert best_scales(groups).sign().flatten().tolist() == [-1, 1]
