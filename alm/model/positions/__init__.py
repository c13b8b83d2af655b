"""Kinds of position encoding: a module has `Config`, `check(model)`, `table_bytes(model)` and `build(config, model)`.

`build` returns a `Positions`. The tensor code is in a private module beside the kind, so that reading a configuration
does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Placement(Protocol):
    """Positions of the tokens of one forward pass."""

    @property
    def slopes(self) -> Tensor | None:
        """Fall of each head's scores per token of distance, (H,); None if they do not fall."""
        ...

    def rotate(self, x: Tensor) -> Tensor:
        """Return queries or keys (B, T, heads, E) with their positions applied."""
        ...


class Positions(Protocol):
    """A position encoding, shared by all layers."""

    def __call__(self, start: int, length: int) -> Placement:
        """Return the placement of the tokens `start` to `start + length - 1`. Only their distances may matter."""
        ...
