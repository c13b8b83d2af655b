"""The feed-forward layers: SwiGLU, squared ReLU, and two SwiGLUs behind a router. Each maps (B, T, D) to (B, T, D).

In training, a layer may set an `auxiliary_loss`.
B batch, T tokens, N = B x T, C capacity, D model width, F inner width.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from alm.model.config import DualConfig, ModelConfig, ReLU2Config
from alm.model.layers import Linear

SMALL, LARGE = 0, 1
# With an undecided router, whose probabilities are one half, the outputs of the layers keep their size.
SCALE = 2.0


def build(config: ModelConfig) -> nn.Module:
    """Build the feed-forward part of one layer."""
    kind, width, inner_width = config.feedforward, config.d_model, config.ffn_hidden_size
    if isinstance(kind, DualConfig):
        return DualFeedForward(kind, width, inner_width)
    return ReLU2(width, inner_width) if isinstance(kind, ReLU2Config) else SwiGLU(width, inner_width)


class SwiGLU(nn.Module):
    """Computes down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv:2002.05202, equation 6)."""

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


class ReLU2(nn.Module):
    """Computes down(relu(up(x))^2), without a gate (So et al. 2021, "Primer", arXiv:2109.08668, section 3)."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.up_proj = Linear(width, inner_width)
        self.down_proj = Linear(inner_width, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D) -> (B, T, D)
        return cast(Tensor, self.down_proj(F.relu(self.up_proj(x)).square()))


class DualFeedForward(nn.Module):
    """Computes 2 p_i(x) layer_i(x), where i is the layer with the higher probability p_i.

    Top-1 routing as in the Switch Transformer (Fedus, Zoph and Shazeer 2022, arXiv:2101.03961, section 2.1): the output
    is scaled by the probability of the chosen layer, here doubled, through which the router learns. Its load-balancing
    loss (section 2.2, equation 4) and the z-loss of ST-MoE (Zoph et al. 2022, arXiv:2202.08906, equation 5) make up the
    `auxiliary_loss`, which is to be added to the mean loss of a token.

    After a forward pass in training, `large_share` and `entropy` (nats) describe the routing. Before, all are None.
    """

    auxiliary_loss: Tensor | None
    large_share: Tensor | None
    entropy: Tensor | None

    def __init__(self, config: DualConfig, width: int, inner_width: int) -> None:
        super().__init__()
        self.router = Linear(width, 2)
        self.small = SwiGLU(width, config.small_hidden_size)
        self.large = SwiGLU(width, inner_width)
        self.config = config
        self.auxiliary_loss = self.large_share = self.entropy = None

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D) -> (B, T, D)
        rows = x.flatten(0, -2)  # (N, D)
        scores, probabilities = self._routed(rows)  # (N, 2) fp32
        is_large = probabilities[:, LARGE] > probabilities[:, SMALL]
        if not self.training:
            self.auxiliary_loss = None
            # Run both layers, without a capacity, so that the output of a token does not depend on its neighbours.
            mixed: Tensor = torch.where(is_large[:, None], self.large(rows), self.small(rows))
            chosen = SCALE * probabilities.amax(1, keepdim=True)
            return (mixed * chosen.to(mixed.dtype)).view(x.shape)
        self._describe(scores, probabilities, is_large)
        return self._within_capacity(rows, probabilities, is_large).view(x.shape)

    def _routed(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        kind = "cpu" if rows.is_meta else rows.device.type  # the meta device has no autocast
        with torch.autocast(kind, enabled=False):
            scores: Tensor = self.router(rows.to(self.router.weight.dtype)) / self.config.temperature
        return scores, torch.softmax(scores, -1)

    def _within_capacity(self, rows: Tensor, probabilities: Tensor, is_large: Tensor) -> Tensor:
        """Run the large layer on exactly C tokens, so that shapes do not change."""
        capacity = min(len(rows), math.ceil(self.config.capacity_factor * len(rows) / 2))
        wishes = probabilities[:, LARGE].detach().masked_fill(~is_large, -1.0)
        wish, chosen = wishes.topk(capacity)  # those with the highest probability
        is_taken = torch.zeros_like(is_large).index_put((chosen,), wish > 0)
        weights = torch.where(is_taken, SCALE * probabilities[:, LARGE], 0.0)[chosen]
        small: Tensor = self.small(rows)
        is_small = ~is_large if self.config.drop_tokens else ~is_taken
        mixed = small * torch.where(is_small, SCALE * probabilities[:, SMALL], 0.0)[:, None].to(small.dtype)
        large = self.large(rows[chosen]) * weights[:, None].to(small.dtype)
        return mixed.index_add(0, chosen, large.to(mixed.dtype))

    def _describe(self, scores: Tensor, probabilities: Tensor, is_large: Tensor) -> None:
        share = is_large.float().mean()
        mean = probabilities.mean(0)
        balance = 2 * ((1 - share) * mean[SMALL] + share * mean[LARGE])
        z = scores.logsumexp(-1).square().mean()
        self.auxiliary_loss = self.config.balance_weight * balance + self.config.z_weight * z
        self.large_share = share.detach()
        self.entropy = -(probabilities * probabilities.clamp_min(1e-20).log()).sum(-1).mean().detach()
