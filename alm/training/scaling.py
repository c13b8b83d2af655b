"""Dynamic loss scaling: fp16 has no numbers below 6e-8, where many gradients are.

The loss is multiplied by a scale, the gradients are divided by it. The scale falls when gradients overflow, in a step
that is skipped, and rises after many steps without an overflow: Micikevicius et al. 2018, "Mixed Precision Training",
arXiv:1710.03740, section 3.2.

It replaces `torch.amp.GradScaler`, which scales an existing loss (ours computes its gradients in the forward pass),
checks only the gradients of its own rank, and has no floor to distinguish an overflow from a diverged model.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# Powers of two, so scaling rounds nothing.
FIRST_SCALE = 2.0**16
LOWEST_SCALE = 1.0
GREATEST_SCALE = 2.0**24
GROWTH, BACKOFF = 2.0, 0.5
# An overflow costs a step: about one in this many, once the scale is as large as it can be.
GROWTH_INTERVAL = 1000


class LossScaler:
    """The scale and its number of good steps in a row, both on the device, so that no step waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.tensor(FIRST_SCALE, device=device)
        self._good_steps = torch.tensor(0, device=device)

    def unscale_(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the scale."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, 1.0 / self.scale)

    def update(self, *, loss: Tensor, is_finite: Tensor) -> Tensor:
        """Choose the scale of the next step; return whether this step may be not finite because of its scale.

        That is so if the `loss` is finite, so that only gradients are not, and the scale can still fall. The tensors
        are replaced, not changed: a checkpoint may hold them.
        """
        overflowed = ~is_finite & torch.isfinite(loss) & (self.scale > LOWEST_SCALE)
        good_steps = torch.where(is_finite, self._good_steps + 1, 0)
        is_due = good_steps >= GROWTH_INTERVAL
        factor = torch.where(overflowed, BACKOFF, torch.where(is_due, GROWTH, 1.0))
        self.scale = (self.scale * factor).clamp(LOWEST_SCALE, GREATEST_SCALE)
        self._good_steps = torch.where(is_due, 0, good_steps)
        return overflowed

    def state(self) -> dict[str, float]:
        """Return the values for a checkpoint; reading them waits for the device."""
        return {"scale": float(self.scale), "good_steps": int(self._good_steps)}

    def restore_(self, state: dict[str, float]) -> None:
        """Continue from `state`."""
        self.scale = torch.full_like(self.scale, state["scale"])
        self._good_steps = torch.full_like(self._good_steps, int(state["good_steps"]))
