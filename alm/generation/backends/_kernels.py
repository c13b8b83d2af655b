"""Kernels that compute one token of each row through a layer, compiled for CPUs in fp32.

A weight matrix is read once, row by row as it is stored, for all rows of the batch: decoding waits for memory, not for
arithmetic. The order of every sum does not depend on the batch or the number of threads, so a row's numbers do not
depend on its neighbours. B rows of the batch, N and W widths, G groups of 32 in a width, H query heads, K key/value
heads, E head width, S places of the cache, R rows of the cache, P positions.
"""

from __future__ import annotations

from pathlib import Path

import numba
import numpy as np

from alm.compiling import Kernel, compiled, folder
from alm.generation.backends._dot_products import GROUP, dot_products

# Sums may be reordered, for vector instructions; infinities and NaN keep their meaning.
_ARITHMETIC = {"reassoc", "contract", "nsz", "arcp"}
# Kernels of this file contain those of `_dot_products.py`.
_FOLDER = folder(Path(__file__).parent)
LARGEST = np.float32(2**15 - 1)
"""The largest code of activations."""
LEAST = np.float32(1e-30)
"""Activations in a group of smaller ones are rounded to zero."""


def _kernel(function: Kernel, **options: bool) -> Kernel:
    return compiled(function, kept=_FOLDER, fastmath=_ARITHMETIC, **options)


def _inlined(function: Kernel) -> Kernel:
    return _kernel(function, forceinline=True)


def _in_threads(function: Kernel) -> Kernel:
    return _kernel(function, parallel=True)


@_inlined
def _multiply_four(weight, scales, x, x_scales, x_sums, out, first, quarter):
    """Compute four columns of `out`, a quarter of all columns apart.

    Their weights are far apart, because a core that reads several streams gets more of the memory's bandwidth: for
    32,000 x 384, one row at a time takes 2.3 ms, four far apart 2.0, four neighbours 2.9 (docs/benchmarks.md). With
    three rows of the batch at a time, what registers hold serves twelve products.
    """
    last = weight.shape[0] - 1
    first = np.int64(first)  # counting in threads has no sign
    columns = (first, min(first + quarter, last), min(first + 2 * quarter, last), min(first + 3 * quarter, last))
    row = 0
    while row + 3 <= x.shape[0]:
        found = dot_products(weight, scales, x, x_scales, x_sums, columns, (row, row + 1, row + 2))
        for column in range(4):
            for of_three in range(3):
                out[row + of_three, columns[column]] = found[3 * column + of_three]
        row += 3
    while row < x.shape[0]:
        found = dot_products(weight, scales, x, x_scales, x_sums, columns, (row,))
        for column in range(4):
            out[row, columns[column]] = found[column]
        row += 1


@_kernel
def multiply(weight, x, out):
    """`out` (B, N) = `x` (B, W) @ `weight` (N, W).T"""
    quarter = (weight.shape[0] + 3) // 4
    for first in range(quarter):
        _multiply_four(weight, None, x, None, None, out, first, quarter)


# A second function, not `multiply` compiled with other options: Numba's cache on disk goes by a function's name.
@_in_threads
def multiply_in_threads(weight, x, out):
    """Compute the same as `multiply`, with all of Numba's threads."""
    quarter = (weight.shape[0] + 3) // 4
    for first in numba.prange(quarter):
        _multiply_four(weight, None, x, None, None, out, first, quarter)


@_kernel
def rounded(x):
    """Round `x` (B, W) to whole numbers in groups of 32: codes (B, G x 32), scales (B, G), minus their sums (B, G).

    A code has 16 bits: it costs no more than one of 8, as products of two 16-bit numbers are what CPUs have. The sum of
    four products with codes of `Int8Matrix` stays below 2^24, so that it is exact in fp32 too.
    """
    groups = (x.shape[1] + GROUP - 1) // GROUP
    codes = np.zeros((x.shape[0], groups * GROUP), dtype=np.int16)
    scales = np.empty((x.shape[0], groups), dtype=np.float32)
    sums = np.empty((x.shape[0], groups), dtype=np.int32)
    for row in range(x.shape[0]):
        for group in range(groups):
            start = group * GROUP
            stop = min(start + GROUP, x.shape[1])
            top = np.float32(0)
            is_finite = np.float32(0)  # NaN if a number is not
            for at in range(start, stop):
                top = max(top, abs(x[row, at]))
                is_finite += x[row, at] * np.float32(0)
            inverse = LARGEST / top if top > LEAST else np.float32(0)
            scales[row, group] = top / LARGEST + is_finite
            total = np.int32(0)
            for at in range(start, stop):
                code = np.int32(np.floor(x[row, at] * inverse + np.float32(0.5)))
                codes[row, at] = code
                total += code
            sums[row, group] = -total
    return codes, scales, sums


@_kernel
def multiply_codes(weight, scales, x, out):
    """`out` (B, N) = `x` (B, W) @ the matrix of codes `weight` with `scales` (`dot_products`), transposed."""
    codes, x_scales, x_sums = rounded(x)
    quarter = (weight.shape[0] + 3) // 4
    for first in range(quarter):
        _multiply_four(weight, scales, codes, x_scales, x_sums, out, first, quarter)


@_in_threads
def multiply_codes_in_threads(weight, scales, x, out):
    """Compute the same as `multiply_codes`, with all of Numba's threads."""
    codes, x_scales, x_sums = rounded(x)
    quarter = (weight.shape[0] + 3) // 4
    for first in numba.prange(quarter):
        _multiply_four(weight, scales, codes, x_scales, x_sums, out, first, quarter)


@_kernel
def normalize(x, weight, eps, out):
    """`out` = `x` (B, W) / sqrt(mean(x^2) + eps) * `weight` (W,), in groups of W where `x` is wider (heads)."""
    width = weight.size
    for row in range(x.shape[0]):
        for start in range(0, x.shape[1], width):
            total = np.float32(0)
            for at in range(width):
                total += x[row, start + at] * x[row, start + at]
            scale = np.float32(1) / np.sqrt(total / np.float32(width) + eps)
            for at in range(width):
                out[row, start + at] = x[row, start + at] * scale * weight[at]


@_kernel
def rotate(x, cos, sin, positions):
    """Rotate the heads of `x` (B, heads x E) by the angles (P, E/2) of `positions` (B,), in place."""
    half = cos.shape[1]
    for row in range(x.shape[0]):
        place = positions[row]
        for start in range(0, x.shape[1], 2 * half):
            for at in range(start, start + half):
                first, second = x[row, at], x[row, at + half]
                c, s = cos[place, at - start], sin[place, at - start]
                x[row, at] = first * c - second * s
                x[row, at + half] = second * c + first * s


@_kernel
def store(k, v, keys, values, rows, positions):
    """Write `k` and `v` (B, K x E) to the cache (R, K, S, E), at its `rows` and `positions` (B,)."""
    width = keys.shape[3]
    for row in range(k.shape[0]):
        for head in range(keys.shape[1]):
            for at in range(width):
                keys[rows[row], head, positions[row], at] = k[row, head * width + at]
                values[rows[row], head, positions[row], at] = v[row, head * width + at]


@_kernel
def attend(q, keys, values, rows, positions, window, scores, out):
    """Compute softmax(q k^T / sqrt(E)) v of each head of `q` (B, H x E), over the last `window` places of its row.

    `keys` and `values` are the cache (R, K, S, E), `scores` (S,) is scratch, `out` is like `q`.
    """
    width = keys.shape[3]
    group = q.shape[1] // width // keys.shape[1]
    scale = np.float32(1) / np.sqrt(np.float32(width))
    for row in range(q.shape[0]):
        stop = positions[row] + 1
        start = max(0, stop - window)
        for head in range(q.shape[1] // width):
            k = keys[rows[row], head // group]
            v = values[rows[row], head // group]
            base = head * width
            top = np.float32(-np.inf)
            for place in range(start, stop):
                score = np.float32(0)
                for at in range(width):
                    score += q[row, base + at] * k[place, at]
                score *= scale
                scores[place] = score
                top = max(top, score)
            total = np.float32(0)
            for place in range(start, stop):
                scores[place] = np.exp(scores[place] - top)
                total += scores[place]
            for at in range(width):
                out[row, base + at] = np.float32(0)
            for place in range(start, stop):
                share = scores[place] / total
                for at in range(width):
                    out[row, base + at] += share * v[place, at]


@_kernel
def gate(gates, up):
    """`gates` = silu(`gates`) * `up`, both (B, W)."""
    for row in range(gates.shape[0]):
        for at in range(gates.shape[1]):
            value = gates[row, at]
            gates[row, at] = value / (np.float32(1) + np.exp(-value)) * up[row, at]
