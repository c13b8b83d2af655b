"""The gated feed-forward layer. B batch, T tokens, D model width, F inner width."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from alm.model.linear import Linear


class SwiGLU(nn.Module):
    """Computes down(silu(gate(x)) * up(x))."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.gate_proj = Linear(width, inner_width)
        self.up_proj = Linear(width, inner_width)
        self.down_proj = Linear(inner_width, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D) -> (B, T, D)
        gate, up = self.gate_proj(x), self.up_proj(x)  # (B, T, F)
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            inner = cast(Tensor, _Gate.apply(gate, up))  # type: ignore[no-untyped-call]
        else:
            inner = F.silu(gate) * up
        return cast(Tensor, self.down_proj(inner))


class _Gate(torch.autograd.Function):
    """Computes silu(gate) * up and saves only the two inputs: the backward pass recomputes silu(gate)."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:  # Any: torch has no type for it
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        d_gate = gradient * up
        d_gate = torch.ops.aten.silu_backward.grad_input(d_gate, gate, grad_input=d_gate)
        return d_gate, F.silu(gate).mul_(gradient)
