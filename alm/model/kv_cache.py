"""Keys and values of the tokens seen so far, in memory that is reserved once.

B batch, T new tokens, S tokens seen so far, K key/value heads, E head width, D model width.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from alm.model.config import ModelConfig


class LayerCache:
    """One layer's keys and values; `length` tokens are filled."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values  # (B, K, max_tokens, E)
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores `k` and `v` (B, K, T, E) behind what is there; all of it, (B, K, S, E), comes back as views."""
        start, end = self.length, self.length + k.shape[2]
        self.keys[:, :, start:end] = k
        self.values[:, :, start:end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """What `Transformer.forward` needs to go on from where it was: prefill any length, then token by token."""

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
        """Room for `max_tokens` (None: all positions of the model); under autocast, `dtype` is its type.

        `padding` (B,) int64: rows whose text is shorter begin with so many tokens that are none.
        """
        self.max_tokens = config.max_position_embeddings if max_tokens is None else max_tokens
        self.padding = padding
        # Numbers of documents (B, max_tokens), where tokens do not see all others.
        self.documents: Tensor | None = None
        self.last_embedding: Tensor | None = None  # (B, 1, D)
        shape = (batch_size, config.n_kv_heads, self.max_tokens, config.head_width)
        self.layers = [
            LayerCache(torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))
            for _ in range(config.n_layers)
        ]

    def row(self, number: int) -> KVCache:
        """An empty cache of one row, in the memory of row `number` of this one."""
        part = copy.copy(self)
        part.layers = [LayerCache(each.keys[number, None], each.values[number, None]) for each in self.layers]
        part.documents = part.last_embedding = part.padding = None
        return part

    def take(self, other: KVCache, tokens: int) -> None:
        """Hold the first `tokens` tokens of `other` and nothing else: their keys and values, which are all that a
        model without documents and smearing remembers.
        """
        for ours, theirs in zip(self.layers, other.layers, strict=True):
            ours.length = 0
            ours.append(theirs.keys[:, :, :tokens], theirs.values[:, :, :tokens])

    @property
    def length(self) -> int:
        """Tokens seen so far."""
        return self.layers[0].length

    def append_documents(self, numbers: Tensor) -> Tensor:
        """Stores `numbers` (B, T) of the tokens that come next; those of all, (B, S), come back as a view."""
        if self.documents is None:
            size = (len(numbers), self.max_tokens)
            self.documents = torch.zeros(size, dtype=numbers.dtype, device=numbers.device)
        end = self.length + numbers.shape[1]
        self.documents[:, self.length : end] = numbers
        return self.documents[:, :end]
