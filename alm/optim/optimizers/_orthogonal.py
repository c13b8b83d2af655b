"""Computes the nearest matrix with orthogonal rows or columns, by matrix products alone.

For G = U S V^T, the result is near U V^T. An odd polynomial p(x) = a x + b x^3 + c x^5 of a matrix, which is
(a I + b X X^T + c (X X^T)^2) X, applies p to the singular values and keeps U and V. A few in a row bring all but the
smallest singular values near 1.

N matrices, R rows, C columns, R <= C.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Method = Literal["polar_express", "newton_schulz"]
Polynomial = tuple[float, float, float]

# Keller Jordan 2024, "Muon: An optimizer for hidden layers in neural networks": steep at 0, ends within 0.7 .. 1.2.
NEWTON_SCHULZ: Polynomial = (3.4445, -4.7750, 2.0315)
# Amsel et al. 2025, arXiv:2505.16932, algorithm 1: the best polynomial of each step for singular values in [1e-3, 1],
# the first three cushioned as in the paper, so that no singular value falls far back.
POLAR_EXPRESS: tuple[Polynomial, ...] = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)
LIMIT: Polynomial = (1.875, -1.25, 0.375)
# Rounding can push a singular value past 1, where the steep polynomials diverge. The margin is from the same section.
SAFETY = 1.01
# A Gram matrix holds squares of singular values, so small ones are lost in rounding. After this many steps in fp32, an
# entry is off by less than 1e-3 if they span five decades, far below the polynomials' own 0.12; after eight, by 7e-3.
_GRAM_RUN = 5
# Cost in R^3: T steps on X take T (4 C/R + 2), on its Gram matrix 4 C/R + 8 T - 6. They are equal here for any T.
_GRAM_FROM = 1.5
# Least norm to divide by. The squares of smaller ones are near the smallest number of fp32.
_TINY = 1e-15


def polynomials(method: Method, steps: int) -> list[Polynomial]:
    """Return the coefficients of each of `steps` steps."""
    if method == "newton_schulz":
        return [NEWTON_SCHULZ] * steps
    safe = [(a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in POLAR_EXPRESS]
    return [*safe[:steps], *[LIMIT] * (steps - len(safe))]


def orthogonalize(matrices: Tensor, steps: Sequence[Polynomial], *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Apply the polynomials `steps` to each of `matrices` (N, R, C), computed in `dtype`. Zeros stay zeros."""
    norm = torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True, dtype=torch.float32)
    x: Tensor = (matrices / (SAFETY * norm.clamp_min(_TINY))).to(dtype)
    # Below fp32, the squares in a Gram matrix would lose small singular values after even fewer steps.
    if dtype != torch.float32 or x.shape[-1] < _GRAM_FROM * x.shape[-2]:
        for polynomial in steps:
            x = _direct(x, polynomial)
        return x
    for start in range(0, len(steps), _GRAM_RUN):
        x = torch.bmm(_factor(torch.bmm(x, x.mT), steps[start : start + _GRAM_RUN]), x)
    return x


def _direct(x: Tensor, polynomial: Polynomial) -> Tensor:
    a, b, c = polynomial
    gram = torch.bmm(x, x.mT)
    moved: Tensor = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return moved


def _factor(gram: Tensor, steps: Sequence[Polynomial]) -> Tensor:
    """Return the factor (N, R, R) that applies `steps` to matrices with this Gram matrix.

    A step multiplies X with a symmetric H that commutes with X X^T, so the next Gram matrix is H X X^T H.
    """
    factor: Tensor | None = None
    for number, (a, b, c) in enumerate(steps, start=1):
        h = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        h.diagonal(dim1=-2, dim2=-1).add_(a)
        factor = h if factor is None else torch.bmm(h, factor)
        if number < len(steps):
            gram = torch.bmm(torch.bmm(h, gram), h)
    assert factor is not None, "no steps"
    return factor
