"""Kinds of position encoding: a module has `Config`, `check(model)`, `table_bytes(model)` and `build(config, model)`.

What `build` returns is a `Positions`. The tensor code lies in a private module beside the kind, so that
reading a configuration does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Placement(Protocol):
    """Where the tokens of one forward pass stand."""

    @property
    def slopes(self) -> Tensor | None:
        """What each head's scores lose with every token of distance, (H,); None when they lose nothing."""
        ...

    def rotate(self, x: Tensor) -> Tensor:
        """Queries or keys (B, T, heads, E) with their positions in them."""
        ...


class Positions(Protocol):
    """A position encoding; one is shared by all layers."""

    def __call__(self, start: int, length: int) -> Placement:
        """The placement of the tokens `start` to `start + length - 1`. Only distances between them may count."""
        ...
