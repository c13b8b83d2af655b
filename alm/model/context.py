"""State that all layers of one forward pass share: the positions of its tokens, and their documents.

B batch, T new tokens, S tokens so far (T of them new), K key/value heads, E head width, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from alm.model.positions import Placement

# Padding is a separate document, which no token of the text sees.
PADDING = -1


@dataclass
class ForwardContext:
    """Shared state of one forward pass. Layers may store tensors here for later layers."""

    placement: Placement
    documents: Tensor | None = None  # (B, S), None when all tokens may see each other
    masks: dict[int | None, Any] = field(default_factory=dict)  # Any: masks of the attention, by window
    keys: Tensor | None = None  # (B,), None without dropout
    embedded: Tensor | None = None  # (B, T, D), the start of the residual stream
    first_values: Tensor | None = None  # (B, K, T, E) of the first layer


def document_numbers(ids: Tensor, *, end_of_text_id: int, before: Tensor | None = None) -> Tensor:
    """Number the documents of the tokens of `ids` (B, T), counted from `before` (B,), int32.

    An end of text belongs to the document that follows it, because generation starts from one, so training must too.
    """
    numbers = (ids == end_of_text_id).cumsum(1, dtype=ids.dtype).int()
    return numbers if before is None else numbers + before.clamp_min(0)[:, None]
