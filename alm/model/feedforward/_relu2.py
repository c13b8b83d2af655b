"""The feed-forward layer with squared ReLU. B batch, T tokens, D model width."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from alm.model.linear import Linear


class ReLU2(nn.Module):
    """Computes down(relu(up(x))^2)."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.up_proj = Linear(width, inner_width)
        self.down_proj = Linear(inner_width, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D) -> (B, T, D)
        return cast(Tensor, self.down_proj(F.relu(self.up_proj(x)).square()))
