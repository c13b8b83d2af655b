"""Scores that fall linearly with distance: arXiv:2108.12409, section 3. H heads, T tokens, S tokens so far."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Biases:
    """The slopes, for tokens at any position: only distances matter."""

    slopes: Tensor  # (H,) fp32

    def rotate(self, x: Tensor) -> Tensor:
        """Return queries and keys unchanged."""
        return x


class LinearBiases(nn.Module):
    """One slope for each head, always in fp32."""

    slopes: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self._fill(torch.device("cpu"))

    def forward(self, start: int, length: int) -> Biases:
        """Return the slopes, which do not depend on the positions."""
        return Biases(self.slopes)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # `model.to(bfloat16)` would round the slopes, and `to_empty` would leave them undefined.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._fill(self.slopes.device)
        return self

    def _fill(self, device: torch.device) -> None:
        slopes = torch.tensor(slopes_of(self.heads), dtype=torch.float32, device=device)
        self.register_buffer("slopes", slopes, persistent=False)


def slopes_of(heads: int) -> list[float]:
    """Return the slopes: 2^(-8/H), 2^(-16/H) and so on if H is a power of two.

    For another H, they are those of the next smaller power of two, then every second one of twice that power (the
    authors' `get_slopes`, github.com/ofirpress/attention_with_linear_biases).
    """
    power = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    return first + [2 ** (-8 * (head + 1) / (2 * power)) for head in range(0, 2 * (heads - power), 2)]
