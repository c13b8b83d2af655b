"""Rotates pairs (i, i + E/2) by position x theta^(-2i/E): arXiv:2104.09864, equation 34.

B batch, T tokens, P positions, H heads, E head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Rotation:
    """The angles of consecutive positions."""

    cos: Tensor  # (T, 1, E/2) fp32
    sin: Tensor  # (T, 1, E/2) fp32

    slopes: None = None

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate each pair of `x` (B, T, H, E) by the angle of its position."""
        if torch.is_grad_enabled() and x.requires_grad:
            return cast(Tensor, _Rotate.apply(x, self.cos, self.sin))  # type: ignore[no-untyped-call]
        return _rotate(x, self.cos, self.sin)


class _Rotate(torch.autograd.Function):
    """A rotation. Its gradient is the inverse rotation, so no tensor of the size of `x` is saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # Any: torch has no type for it
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotate(gradient, cos, -sin), None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    if x.dtype != torch.float32 or torch.compiler.is_compiling():
        turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
        return turned.to(x.dtype)
    # Written in place, which is a third faster than joining the halves afterwards.
    turned = torch.empty_like(x, memory_format=torch.contiguous_format)
    new_first, new_second = turned.chunk(2, dim=-1)
    torch.mul(first, cos, out=new_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=new_second).addcmul_(first, sin)
    return turned


class Rotary(nn.Module):
    """The rotations of all positions, computed once, always in fp32."""

    cos: Tensor
    sin: Tensor
    frequencies: Tensor

    def __init__(self, frequencies: Tensor, *, max_positions: int, factor: float = 1.0) -> None:
        """Compute the angles of all positions from `frequencies` (E/2,) on the CPU. `factor` scales the results."""
        super().__init__()
        self.max_positions, self.factor = max_positions, factor
        # Not a buffer, so that it is neither cast nor moved.
        self.__dict__["frequencies"] = frequencies
        self._fill(torch.device("cpu"))

    def forward(self, start: int, length: int) -> Rotation:
        """Return the rotation of the positions `start` to `start + length - 1`."""
        return Rotation(self.cos[start : start + length], self.sin[start : start + length])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # `model.to(bfloat16)` would round the angles, and `to_empty` would leave them undefined.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._fill(self.cos.device)
        return self

    def _fill(self, device: torch.device) -> None:
        places = torch.arange(self.max_positions, dtype=torch.float32, device="cpu")
        angles = torch.outer(places, self.frequencies)  # (P, E/2)
        self.register_buffer("cos", (angles.cos() * self.factor)[:, None].to(device), persistent=False)
        self.register_buffer("sin", (angles.sin() * self.factor)[:, None].to(device), persistent=False)
