"""The model: shaped, and its tensors named, as Hugging Face's Llama, or Qwen3 with `qk_norm`.

B batch, T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alm import kinds
from alm.model.config import ModelConfig
from alm.model.kv_cache import KVCache, LayerCache
from alm.model.linear import Embedding, Linear
from alm.model.norm import RMSNorm
from alm.model.positions import Placement, Positions


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.input_layernorm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.self_attn: nn.Module = kinds.module_of(config.attention).build(config.attention, config, layer)
        self.post_attention_layernorm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.mlp: nn.Module = kinds.module_of(config.feedforward).build(config.feedforward, config)

    def forward(self, x: Tensor, placement: Placement, cache: LayerCache | None = None) -> Tensor:
        x = x + self._drop(self.self_attn(self.input_layernorm(x), placement, cache))
        return x + self._drop(self.mlp(self.post_attention_layernorm(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Decoder(nn.Module):
    """Embedding, blocks and the final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.embed_tokens = Embedding(config.known_vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.positions: Positions = kinds.module_of(config.positions).build(config.positions, config)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        placement = self.positions(0 if cache is None else cache.length, ids.shape[1])
        x = F.dropout(self.embed_tokens(ids), self.dropout, self.training)
        for number, layer in enumerate(self.layers):
            x = layer(x, placement, None if cache is None else cache.layers[number])
        return cast(Tensor, self.norm(x))


class Transformer(nn.Module):
    """A decoder-only language model. Its matrices are zero until `initialize` or `load_state_dict` fills them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = None if config.tie_embeddings else Linear(config.d_model, config.known_vocab_size)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Hidden states (B, T, D) after the final norm, of `ids` (B, T) int64.

        With `cache`, `ids` follow the tokens it holds, and are added to it.
        """
        self._check_room(ids.shape[1], cache)
        return cast(Tensor, self.model(ids, cache))

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., V) of the next token, from hidden states (..., D)."""
        return F.linear(hidden, self.head_weight)

    @property
    def head_weight(self) -> Tensor:
        """The matrix (V, D) that scores the next token."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def auxiliary_loss(self) -> Tensor | None:
        """What feed-forward layers add to the mean loss of a token after a forward pass in training; often nothing."""
        found = [getattr(layer.mlp, "auxiliary_loss", None) for layer in self.model.layers]
        losses = [loss for loss in found if isinstance(loss, Tensor)]
        return torch.stack(losses).sum() if losses else None

    def routing(self) -> dict[str, Tensor]:
        """How tokens were routed in the last forward pass in training: means over the layers; empty without routers."""
        layers = [layer.mlp for layer in self.model.layers if getattr(layer.mlp, "large_share", None) is not None]
        return {
            f"routing_{name}": torch.stack([getattr(layer, name) for layer in layers]).mean()
            for name in (("large_share", "entropy") if layers else ())
        }

    def new_cache(self, *, batch_size: int = 1, max_tokens: int | None = None) -> KVCache:
        """An empty cache of this model's type and on its device."""
        weight = self.head_weight
        return KVCache(
            self.config, batch_size=batch_size, max_tokens=max_tokens, dtype=weight.dtype, device=weight.device
        )

    def _check_room(self, new_tokens: int, cache: KVCache | None) -> None:
        start, room = (0, self.config.max_position_embeddings) if cache is None else (cache.length, cache.max_tokens)
        room = min(room, self.config.max_position_embeddings)
        if start + new_tokens > room:
            raise ValueError(f"{start} + {new_tokens} tokens do not fit in {room}")
