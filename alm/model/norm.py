"""Root mean square normalization (Zhang and Sennrich 2019, arXiv:1910.07467, equation 4).

N rows, W width.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """Computes x / sqrt(mean(x^2) + eps) * weight over the last dimension, in at least fp32."""

    def __init__(self, width: int, *, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:  # (..., W) -> the same shape and type
        if x.dtype == self.weight.dtype:
            return self._normalize(x)
        # For heads under autocast, whose result would otherwise take the type of the weight.
        return self._normalize(x.to(self.weight.dtype)).to(x.dtype)

    def _normalize(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.dtype == torch.float32 and torch.is_grad_enabled() and _is_eager():
            # PyTorch has a fused kernel for other devices. Here, its backward pass is several times slower than this.
            return cast(Tensor, _RMSNorm.apply(x, self.weight, self.eps))  # type: ignore[no-untyped-call]
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class _RMSNorm(torch.autograd.Function):
    """Saves the input and one number per row. PyTorch's own chain of operations saves three tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:  # Any: torch has no type for it
        rows = x.reshape(-1, x.shape[-1])  # (N, W)
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        scale = norms.square_().div_(rows.shape[1]).add_(eps).rsqrt_()  # (N, 1)
        ctx.save_for_backward(rows, weight, scale)
        return cast(Tensor, (rows * scale).mul_(weight).view(x.shape))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """Compute, with n = x scale: dx = scale (g w - n mean(g w n)) and dw = sum over rows of g n."""
        rows, weight, scale = ctx.saved_tensors
        g = gradient.reshape(rows.shape)
        normalized = rows * scale
        product = g * normalized
        # A sum, because autocast would round a matrix product to its type.
        mean = (product * weight).sum(1, keepdim=True).div_(-rows.shape[1])
        dx = normalized.mul_(mean).addcmul_(g, weight).mul_(scale)
        return dx.view(gradient.shape), product.sum(0), None


def _is_eager() -> bool:
    return not torch.compiler.is_compiling()
