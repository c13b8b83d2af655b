"""A moving average of the weights, which scores better than the weights themselves (docs/log.md)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from alm.training.parallel import local_part


class WeightAverage:
    """The average of `parameters` over about the last `share` of the steps so far, older steps counting less.

    Step t counts in proportion to t^(1/share - 2), so that the average lags behind by `share` of the steps and needs no
    number of steps to come: a run may become longer (Karras et al. 2024, "Analyzing and Improving the Training Dynamics
    of Diffusion Models", arXiv:2312.02696, equation 4). Ranks with parts of the parameters keep parts of the average.
    """

    def __init__(self, parameters: Iterable[Tensor], *, share: float) -> None:
        self._weights = [local_part(parameter.detach()) for parameter in parameters]
        self._power = 1 / share - 1
        self._average: list[Tensor] | None = None  # until the first step it is the weights

    def reset(self) -> None:
        """Make the average equal to the weights."""
        self._average = [weight.clone() for weight in self._weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after `step`, counted from 1."""
        if self._average is None:
            self.reset()
        assert self._average is not None
        torch._foreach_lerp_(self._average, self._weights, 1 - (1 - 1 / step) ** self._power)

    @torch.no_grad()
    def exchange(self) -> None:
        """Exchange the average and the weights."""
        for weight, average in zip(self._weights, self._average or (), strict=False):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)
