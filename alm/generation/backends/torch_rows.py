"""Rows for any model: `Transformer.forward`, one row after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from alm.model.transformer import Transformer


class TorchRows:
    """Rows of any model on any device, computed as in training."""

    def __init__(self, model: Transformer, *, count: int, max_tokens: int) -> None:
        self._model = model
        self._cache = model.new_cache(batch_size=count, max_tokens=max_tokens)
        self._caches = [self._cache.row(row) for row in range(count)]

    def prefill(self, row: int, ids: Sequence[int], kept: int = 0) -> Tensor:
        """Compute the scores (V,) of the token after `ids`, of which the row has read the first `kept`."""
        self._caches[row] = self._cache.row(row, length=kept)
        return self._next(row, ids[kept:])

    def share(self, source: int, row: int, tokens: int) -> bool:
        """Copy keys and values; False for models that keep more state than these."""
        if not self._model.config.is_llama:
            return False
        self._cache.copy_row(source, row, tokens)
        self._caches[row] = self._cache.row(row, length=tokens)
        return True

    def step(self, rows: Sequence[int], ids: Sequence[int]) -> Tensor:
        """Compute the scores (B, V) of the tokens after `ids`."""
        return torch.stack([self._next(row, [token_id]) for row, token_id in zip(rows, ids, strict=True)])

    # Entered for each token: a mode held across a `yield` would leak into the caller's code.
    @torch.inference_mode()
    def _next(self, row: int, ids: Sequence[int]) -> Tensor:
        placed = torch.tensor([ids], device=self._model.device)
        return self._model.logits(self._model(placed, self._caches[row])[0, -1]).float().cpu()
