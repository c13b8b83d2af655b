"""Blocks of 256 numbers in llama.cpp's types Q4_K and Q6_K, which the library `gguf` reads but does not write.

The scales are searched as `make_qkx2_quants` and `make_qx_quants` of ggml-quants.c do: several grids are tried for each
group of numbers, and the one with the smallest weighted squared error is kept, with the scale that fits it best.

N rows of whole blocks, B blocks of `BLOCK` numbers, G groups with a scale of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

BLOCK = 256
"""Number of values in a block."""
_BLOCKS_AT_A_TIME = 512  # half a megabyte of numbers, which stays in the cache
_TINY = np.float32(1e-15)
"""Values of a group that count as zero: fp16 holds none so small."""

# Q4_K: 8 groups of 32 numbers, each code x scale - minimum, with 6 bits for a scale and for a minimum.
_Q4_LARGEST, _Q4_GROUP = 15, 32
_Q4_GRIDS = [_Q4_LARGEST - 1 + 0.1 * step for step in range(21)]
_LARGEST_SCALE = 63
# Q6_K: 16 groups of 16 numbers, each (code - 32) x scale, with 8 bits for a scale.
_Q6_HALF, _Q6_GROUP = 32, 16
_Q6_GRIDS = [_Q6_HALF, *(_Q6_HALF + 0.1 * step for step in range(-9, 10) if step)]
_LEAST_SCALE = -128


def q4_k(values: Numbers) -> Bytes:
    """Return the blocks of `values` (N, W) in Q4_K, (N, W / 256 x 144)."""
    return _in_parts(values, _q4_k)


def q6_k(values: Numbers) -> Bytes:
    """Return the blocks of `values` (N, W) in Q6_K, (N, W / 256 x 210)."""
    return _in_parts(values, _q6_k)


def _in_parts(values: Numbers, blocks_of: Callable[[Numbers], Bytes]) -> Bytes:
    blocks = values.reshape(-1, BLOCK)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        parts = [
            blocks_of(blocks[start : start + _BLOCKS_AT_A_TIME]) for start in range(0, len(blocks), _BLOCKS_AT_A_TIME)
        ]
    return np.concatenate(parts).reshape(len(values), -1)


def _q4_k(blocks: Numbers) -> Bytes:
    groups = blocks.reshape(len(blocks), -1, _Q4_GROUP)  # (B, 8, 32)
    scales, minimums = _scales_and_minimums(groups)
    scale_codes, scale = _six_bits(scales)
    minimum_codes, minimum = _six_bits(minimums)
    steps = (_fp32(scale) * scale_codes)[..., None]
    shifted = groups + (_fp32(minimum) * minimum_codes)[..., None]
    codes = _rounded(np.where(steps > 0, shifted / steps, 0), 0, _Q4_LARGEST).astype(np.uint8)
    low, high = codes.reshape(len(blocks), 4, 2, _Q4_GROUP).swapaxes(0, 2).swapaxes(1, 2)
    pairs = (low | high << 4).reshape(len(blocks), -1)
    packed = _packed_scales(scale_codes.astype(np.uint8), minimum_codes.astype(np.uint8))
    return np.concatenate([_bytes(scale), _bytes(minimum), packed, pairs], axis=1)


def _scales_and_minimums(groups: Numbers) -> tuple[Numbers, Numbers]:
    """Return scale and minimum (B, G) of each of `groups` (B, G, 32): a value is about code x scale - minimum."""
    weights = np.sqrt(np.square(groups).mean(-1, keepdims=True)) + np.abs(groups)
    low, high = np.minimum(groups.min(-1), 0), groups.max(-1)  # (B, G)
    sum_w, sum_x = weights.sum(-1), (weights * groups).sum(-1)
    is_flat = high - low <= _TINY
    scale = np.where(is_flat, 0, (high - low) / _Q4_LARGEST)

    def codes_of(inverse: Numbers) -> Numbers:
        return _rounded(inverse[..., None] * (groups - low[..., None]), 0, _Q4_LARGEST)

    def error_of(codes: Numbers, scale: Numbers, low: Numbers) -> Numbers:
        off = scale[..., None] * codes + low[..., None] - groups
        error: Numbers = (weights * off * off).sum(-1)
        return error

    least = error_of(codes_of(_Q4_LARGEST / (high - low)), scale, low)
    for levels in _Q4_GRIDS:
        codes = codes_of(np.float32(levels) / (high - low))
        weighted = weights * codes
        sum_l, sum_l2, sum_xl = weighted.sum(-1), (weighted * codes).sum(-1), (weighted * groups).sum(-1)
        determinant = sum_w * sum_l2 - sum_l * sum_l
        fitted_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        is_above = fitted_low > 0
        fitted = np.where(is_above, sum_xl / sum_l2, (sum_w * sum_xl - sum_x * sum_l) / determinant)
        fitted_low = np.where(is_above, 0, fitted_low)
        error = error_of(codes, fitted, fitted_low)
        is_better = ~is_flat & (determinant > 0) & (error < least)
        scale, low = np.where(is_better, fitted, scale), np.where(is_better, fitted_low, low)
        least = np.where(is_better, error, least)
    return scale.astype(np.float32), -low.astype(np.float32)


def _six_bits(values: Numbers) -> tuple[Numbers, npt.NDArray[np.float16]]:
    """Return codes from 0 to 63 for `values` (B, G), which are not below zero, and the scale of each block (B, 1)."""
    largest = values.max(-1, keepdims=True)
    codes = np.where(largest > _TINY, _rounded(values * (_LARGEST_SCALE / largest), 0, _LARGEST_SCALE), 0)
    return codes.astype(np.float32), (largest / _LARGEST_SCALE).astype(np.float16)


def _packed_scales(scales: Bytes, minimums: Bytes) -> Bytes:
    """Pack codes of 6 bits, 8 scales and 8 minimums for each block (B, 8), into 12 bytes (B, 12).

    Those of the first four groups have a byte each, in whose upper two bits are the upper bits of the last four.
    """
    first = scales[:, :4] | (scales[:, 4:] >> 4) << 6
    second = minimums[:, :4] | (minimums[:, 4:] >> 4) << 6
    last = (scales[:, 4:] & 15) | (minimums[:, 4:] & 15) << 4
    return np.concatenate([first, second, last], axis=1)


def _q6_k(blocks: Numbers) -> Bytes:
    groups = blocks.reshape(len(blocks), -1, _Q6_GROUP)  # (B, 16, 16)
    scales = _signed_scales(groups)
    largest = np.take_along_axis(scales, np.abs(scales).argmax(-1, keepdims=True), -1)  # (B, 1)
    is_zero = np.abs(largest) < _TINY
    scale = np.where(is_zero, 0, largest / _LEAST_SCALE).astype(np.float16)
    scale_codes = _rounded(np.where(is_zero, 0, scales * (_LEAST_SCALE / largest)), _LEAST_SCALE, -_LEAST_SCALE - 1)
    steps = (_fp32(scale) * scale_codes)[..., None]
    codes = _rounded(np.where(steps != 0, groups / steps, 0), -_Q6_HALF, _Q6_HALF - 1) + _Q6_HALF
    quarters = codes.astype(np.uint8).reshape(len(blocks), 2, 4, 32)
    low, high = quarters & 15, quarters >> 4
    fours = (low[:, :, :2] | low[:, :, 2:] << 4).reshape(len(blocks), -1)
    twos = high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6
    as_bytes = scale_codes.astype(np.int8).view(np.uint8)
    return np.concatenate([fours, twos.reshape(len(blocks), -1), as_bytes, _bytes(scale)], axis=1)


def _signed_scales(groups: Numbers) -> Numbers:
    """Return the scale (B, G) of each of `groups` (B, G, 16) that makes the squared error, weighted by x^2, least."""
    extreme = np.take_along_axis(groups, np.abs(groups).argmax(-1, keepdims=True), -1)  # (B, G, 1)
    is_zero = np.abs(extreme[..., 0]) < _TINY
    scale, best = np.zeros_like(extreme[..., 0]), np.zeros_like(extreme[..., 0])
    for half in _Q6_GRIDS:
        codes = _rounded(groups * (np.float32(-half) / extreme), -_Q6_HALF, _Q6_HALF - 1)
        weighted = groups * groups * codes
        sum_xl, sum_l2 = (weighted * groups).sum(-1), (weighted * codes).sum(-1)
        is_better = ~is_zero & (sum_l2 > 0) & (sum_xl * sum_xl > best * sum_l2)
        scale = np.where(is_better, sum_xl / sum_l2, scale)
        best = np.where(is_better, sum_xl * sum_xl / sum_l2, best)
    return scale.astype(np.float32)


def _rounded(values: Numbers, least: int, most: int) -> Numbers:
    return np.clip(np.rint(values), least, most)


def _fp32(scale: npt.NDArray[np.float16]) -> Numbers:
    return scale.astype(np.float32)


def _bytes(scale: npt.NDArray[np.float16]) -> Bytes:
    return np.ascontiguousarray(scale).view(np.uint8)
