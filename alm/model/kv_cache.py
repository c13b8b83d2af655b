"""Keys and values of the tokens so far, in memory that is allocated once.

B batch, T new tokens, S tokens so far, K key/value heads, E head width, D model width.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from alm.model.config import ModelConfig


class LayerCache:
    """Keys and values of one layer, of which the first `length` tokens are filled."""

    def __init__(self, keys: Tensor, values: Tensor, length: int = 0) -> None:
        self.keys, self.values = keys, values  # (B, K, max_tokens, E)
        self.length = length

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append `k` and `v` (B, K, T, E). Return all keys and values so far, (B, K, S, E), as views."""
        start, end = self.length, self.length + k.shape[2]
        self.keys[:, :, start:end] = k
        self.values[:, :, start:end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """State with which `Transformer.forward` continues a text: prefill of any length, then token by token."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        batch_size: int = 1,
        max_tokens: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        padding: Tensor | None = None,
    ) -> None:
        """Allocate room for `max_tokens` (None: all positions of the model). Under autocast, `dtype` is its type.

        `padding` (B,) int64: rows are left-padded with this many tokens.
        """
        self.max_tokens = config.max_position_embeddings if max_tokens is None else max_tokens
        self.padding = padding
        # Document numbers (B, max_tokens), if tokens do not see all tokens before them.
        self.documents: Tensor | None = None
        self.last_embedding: Tensor | None = None  # (B, 1, D)
        shape = (batch_size, config.n_kv_heads, self.max_tokens, config.head_width)
        self.layers = [
            LayerCache(torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))
            for _ in range(config.n_layers)
        ]

    def row(self, number: int, *, length: int = 0) -> KVCache:
        """Return a cache of one row, of which `length` tokens are filled, in the memory of row `number` of this one."""
        part = copy.copy(self)
        part.layers = [LayerCache(each.keys[number, None], each.values[number, None], length) for each in self.layers]
        part.documents = part.last_embedding = part.padding = None
        return part

    def copy_row(self, source: int, row: int, tokens: int) -> None:
        """Copy the keys and values of the first `tokens` tokens of row `source` to `row`.

        They are the complete state of a model without documents and smearing.
        """
        for layer in self.layers:
            layer.keys[row, :, :tokens] = layer.keys[source, :, :tokens]
            layer.values[row, :, :tokens] = layer.values[source, :, :tokens]

    @property
    def length(self) -> int:
        """Number of tokens so far."""
        return self.layers[0].length

    def append_documents(self, numbers: Tensor) -> Tensor:
        """Append the document `numbers` (B, T) of the next tokens. Return all so far, (B, S), as a view."""
        if self.documents is None:
            size = (len(numbers), self.max_tokens)
            self.documents = torch.zeros(size, dtype=numbers.dtype, device=numbers.device)
        end = self.length + numbers.shape[1]
        self.documents[:, self.length : end] = numbers
        return self.documents[:, :end]
