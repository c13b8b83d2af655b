"""GPTQ: rounds a matrix to int4 one column after the other, and lets later columns make up for the error so far.

Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
arXiv:2210.17323, section 3.3 and algorithm 1. N rows, W columns, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alm.quant.codes import GROUP, LARGEST_INT4, LEAST_INT4, Int4Matrix, best_scales, packed

# Share of the mean diagonal that is added to it, as in the paper: it keeps the matrix invertible.
_DAMPING = 0.01


def to_int4(weight: Tensor, moments: Tensor) -> Int4Matrix:
    """Round `weight` (N, W) so that its products with inputs change little.

    `moments` (W, W) is the sum of x x^T over inputs x (W,) of a text: the second derivatives of the squared error of
    the outputs, but for a factor.
    """
    left = weight.clone()  # what is still to be rounded, with the errors of the columns before
    upper = _inverse_root(moments)
    codes, scales = torch.empty_like(left), []
    for start in range(0, left.shape[1], GROUP):
        stop = start + GROUP
        group = left[:, start:stop]
        scale = best_scales(group, moments.diagonal()[start:stop].clamp_min(1e-12))
        scales.append(scale)
        errors = _round_group_(group, codes[:, start:stop], scale.float(), upper[start:stop, start:stop])
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    return Int4Matrix(packed(codes), torch.stack(scales, dim=1))


def _round_group_(group: Tensor, codes: Tensor, scale: Tensor, upper: Tensor) -> Tensor:
    """Round the columns of `group` (N, 32) in turn, into `codes`; return their errors, each divided by its diagonal."""
    errors = torch.empty_like(group)
    safe = torch.where(scale == 0, torch.inf, scale)
    for column in range(GROUP):
        values = group[:, column]
        code = (values / safe).round_().clamp_(LEAST_INT4, LARGEST_INT4)
        error = (values - code * scale) / upper[column, column]
        group[:, column + 1 :] -= error[:, None] * upper[column, column + 1 :]
        codes[:, column], errors[:, column] = code, error
    return errors


def _inverse_root(moments: Tensor) -> Tensor:
    """Return the upper Cholesky factor (W, W) of the inverse of the damped `moments`, in fp32."""
    damped = moments.to(torch.float64, copy=True)
    diagonal = damped.diagonal()
    # An input that is always zero has no second derivative: any value of its column is right.
    diagonal[diagonal == 0] = 1.0
    damped = damped + _DAMPING * diagonal.mean() * torch.eye(len(damped), dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()
