"""A small and a large SwiGLU behind a router. B batch, T tokens, N = B x T, C capacity, D model width."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from alm.model.feedforward._swiglu import SwiGLU
from alm.model.linear import Linear

if TYPE_CHECKING:
    from alm.model.feedforward.dual import Config

SMALL, LARGE = 0, 1
# With an undecided router, whose probabilities are one half, the outputs of the layers keep their size.
SCALE = 2.0


class DualFeedForward(nn.Module):
    """Computes 2 p_i(x) layer_i(x), where i is the layer with the higher probability p_i.

    After a forward pass in training, `auxiliary_loss` is to be added to the mean loss of a token, and `large_share` and
    `entropy` (nats) describe the routing. Before that, all are None.
    """

    auxiliary_loss: Tensor | None
    large_share: Tensor | None
    entropy: Tensor | None

    def __init__(self, config: Config, width: int, inner_width: int) -> None:
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
