"""What all layers of one forward pass share: where its tokens stand, and which of them are one document.

B batch, T new tokens, S tokens seen so far (T of them new), K key/value heads, E head width,
D model width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from alm.model.positions import Placement

# Padding is a document of its own, which no token of the text sees.
PADDING = -1


@dataclass
class Scene:
    """One forward pass. Layers may leave something here for those above them."""

    placement: Placement
    documents: Tensor | None = None  # (B, S), None when all tokens may see each other
    masks: dict[int | None, Any] = field(default_factory=dict)  # Any: what the attention makes of it, by window
    keys: Tensor | None = None  # (B,), None where nothing is dropped
    embedded: Tensor | None = None  # (B, T, D), where the residual stream begins
    first_values: Tensor | None = None  # (B, K, T, E) of the first layer


def document_numbers(ids: Tensor, *, end_of_text_id: int, before: Tensor | None = None) -> Tensor:
    """Which document each token of `ids` (B, T) belongs to, counted from `before` (B,), int32.

    An end of text opens the document that follows it: where generation begins, training began too.
    """
    numbers = (ids == end_of_text_id).cumsum(1, dtype=ids.dtype).int()
    return numbers if before is None else numbers + before.clamp_min(0)[:, None]
