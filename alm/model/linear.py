"""Weight matrices as they are here: no bias, and zero until `initialize` or `load_state_dict` fills them.

PyTorch's own layers would draw from the global generator when they are made.
"""

from __future__ import annotations

from torch import nn


class Linear(nn.Linear):
    """x @ weight.T, with `weight` (out, in)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        """Zeros."""
        nn.init.zeros_(self.weight)


class Embedding(nn.Embedding):
    """A table of rows, `weight` (V, D)."""

    def reset_parameters(self) -> None:
        """Zeros."""
        nn.init.zeros_(self.weight)
