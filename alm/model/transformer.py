"""The model. Shapes and tensor names are those of Hugging Face's Llama, Mistral, Qwen2, Qwen3 and SmolLM3.

B batch, T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alm.model import feedforward, positions
from alm.model.attention import GroupedAttention
from alm.model.config import ModelConfig
from alm.model.context import PADDING, ForwardContext, document_numbers
from alm.model.kv_cache import KVCache, LayerCache
from alm.model.layers import PaddedEmbedding, RMSNorm, drop, random_keys
from alm.model.loss import Losses, losses, token_losses


class Block(nn.Module):
    """Attention, then a feed-forward layer, each added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.site = 1 + 2 * layer  # this block's first dropout site; site 0 is the embeddings
        self.input_layernorm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.self_attn = GroupedAttention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.mlp = feedforward.build(config)
        self.residual_scale = _vector(1, config.x0_skip)
        self.x0_scale = _vector(1, config.x0_skip)

    def forward(self, x: Tensor, context: ForwardContext, cache: LayerCache | None = None) -> Tensor:
        if self.residual_scale is not None and self.x0_scale is not None and context.embedded is not None:
            x = self.residual_scale * x + self.x0_scale * context.embedded
        x = x + self._drop(self.self_attn(_narrowed(self.input_layernorm(x)), context, cache), context, self.site)
        return x + self._drop(self.mlp(_narrowed(self.post_attention_layernorm(x))), context, self.site + 1)

    def _drop(self, x: Tensor, context: ForwardContext, site: int) -> Tensor:
        return x if context.keys is None else drop(x, self.dropout, context.keys, site=site)


def _narrowed(x: Tensor) -> Tensor:
    """Cast `x` to the type of matrix products once, because each product would otherwise save its own copy."""
    kind = x.device.type
    if x.is_meta or not torch.is_autocast_enabled(kind):  # the meta device has no autocast
        return x
    return x.to(torch.get_autocast_dtype(kind))


def _vector(width: int, is_there: bool) -> nn.Parameter | None:
    return nn.Parameter(torch.zeros(width)) if is_there else None


class Decoder(nn.Module):
    """Embedding, blocks and the final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.embed_tokens = PaddedEmbedding(config.known_vocab_size, config.d_model)
        self.smear = _vector(config.d_model, config.smear)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.positions = positions.build(config)
        attention = config.attention
        self.end_of_text_id = attention.end_of_text_id if attention.document_mask else None

    def forward(
        self,
        ids: Tensor,
        cache: KVCache | None = None,
        padding: Tensor | None = None,
        keys: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        start, padding = (0, padding) if cache is None else (cache.length, cache.padding)
        # Positions ignore padding, which shifts all positions of a row equally: only distances matter.
        if documents is None:
            documents = self._documents(ids, cache, start, padding)
        context = ForwardContext(self.positions(start, ids.shape[1]), documents)
        x = self._smeared(self.embed_tokens(ids), context, cache)
        if self.training and self.dropout:
            context.keys = random_keys(len(ids), ids.device) if keys is None else keys
            x = drop(x, self.dropout, context.keys, site=0)
        context.embedded = x
        for number, layer in enumerate(self.layers):
            x = layer(x, context, None if cache is None else cache.layers[number])
        return cast(Tensor, self.norm(x))

    def _documents(self, ids: Tensor, cache: KVCache | None, start: int, padding: Tensor | None) -> Tensor | None:
        """Return the document numbers of all tokens so far (B, S); None if every token sees all before it."""
        if self.end_of_text_id is None and padding is None:
            return None
        numbers = torch.zeros_like(ids, dtype=torch.int32)
        if self.end_of_text_id is not None:
            before = cache.documents[:, start - 1] if cache is not None and cache.documents is not None else None
            numbers = document_numbers(ids, end_of_text_id=self.end_of_text_id, before=before)
        if padding is not None:
            places = torch.arange(start, start + ids.shape[1], device=ids.device)
            numbers = numbers.masked_fill(places < padding[:, None], PADDING)
        return numbers if cache is None else cache.append_documents(numbers)

    def _smeared(self, x: Tensor, context: ForwardContext, cache: KVCache | None) -> Tensor:
        """Add a share of the previous token's embedding to each (B, T, D), unless that is of another document."""
        if self.smear is None:
            return x
        before = cache.last_embedding if cache is not None and cache.length else None
        previous = torch.cat((torch.zeros_like(x[:, :1]) if before is None else before, x[:, :-1]), dim=1)
        if context.documents is not None:
            numbers = F.pad(context.documents, (1, 0), value=PADDING)[:, -x.shape[1] - 1 :]  # (B, T + 1)
            previous = previous * (numbers[:, 1:] == numbers[:, :-1])[..., None]
        if cache is not None:
            cache.last_embedding = x[:, -1:].clone()  # a view would keep the memory of all
        return x + self.smear * previous


class Transformer(nn.Module):
    """A decoder-only language model. Its matrices are zero until `initialize` or `load_state_dict` fills them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = None if config.tie_embeddings else PaddedEmbedding(config.known_vocab_size, config.d_model)

    @classmethod
    def holding(cls, config: ModelConfig, weights: Mapping[str, Tensor]) -> Self:
        """Return the model of `config` with `weights`, ready to evaluate, in their type.

        It shares their memory, except for tables with padding rows: no second copy of a large model exists.
        """
        with torch.device("meta"):
            model = cls(config)
        model.load_state_dict(weights, assign=True)
        return model.eval()

    def forward(
        self,
        ids: Tensor,
        cache: KVCache | None = None,
        *,
        padding: Tensor | None = None,
        keys: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """Return the hidden states (B, T, D) of `ids` (B, T) int64 after the final norm.

        With `cache`, `ids` follow the tokens that it holds, and are added to it. `padding` (B,) int64 is the number of
        padding tokens at the start of each row, which no other token sees. A cache has its own padding. `documents`
        (B, T) int32 number the texts of packed rows: a token sees only its own, wherever the model would see documents
        end.

        In training, `keys` (B,) int64 decide what dropout drops in each row (`drop` in `alm/model/layers.py`). Without
        them, it is random.
        """
        if cache is not None and padding is not None:
            raise ValueError("a cache has its own padding: give it to `new_cache`")
        if documents is not None and (cache is not None or padding is not None):
            raise ValueError("documents are those of complete rows: no cache and no padding goes with them")
        self._check_room(ids.shape[1], cache)
        return cast(Tensor, self.model(ids, cache, padding, keys, documents))

    def logits(self, hidden: Tensor) -> Tensor:
        """Return scores (..., V) of the next token from hidden states (..., D)."""
        return self._head.scores(hidden)

    def losses(
        self, hidden: Tensor, targets: Tensor, *, divisor: float | Tensor = 1.0, z_weight: float = 0.0
    ) -> Losses:
        """Return the summed losses of hidden states (B, T, D) at `targets` (B, T): `alm.model.loss.losses`."""
        size = self.config.known_vocab_size
        return losses(hidden, self._head.weight, targets, vocab_size=size, divisor=divisor, z_weight=z_weight)

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return -ln p(target) of every token, (B, T), without a gradient."""
        return token_losses(hidden, self._head.weight, targets, vocab_size=self.config.known_vocab_size)

    @property
    def head_weight(self) -> Tensor:
        """The matrix (V, D) that scores the next token."""
        return self._head.weight[: self.config.known_vocab_size]

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return self.model.norm.weight.device

    @property
    def _head(self) -> PaddedEmbedding:
        return self.model.embed_tokens if self.lm_head is None else self.lm_head

    def auxiliary_loss(self) -> Tensor | None:
        """Return the sum that feed-forward layers add to the mean loss after a forward pass in training, if any."""
        found = [getattr(layer.mlp, "auxiliary_loss", None) for layer in self.model.layers]
        there = [loss for loss in found if isinstance(loss, Tensor)]
        return torch.stack(there).sum() if there else None

    def routing(self) -> dict[str, Tensor]:
        """Return routing statistics of the last forward pass in training: means over layers; empty without routers."""
        layers = [layer.mlp for layer in self.model.layers if getattr(layer.mlp, "large_share", None) is not None]
        return {
            f"routing_{name}": torch.stack([getattr(layer, name) for layer in layers]).mean()
            for name in (("large_share", "entropy") if layers else ())
        }

    def new_cache(
        self, *, batch_size: int = 1, max_tokens: int | None = None, padding: Tensor | None = None
    ) -> KVCache:
        """Return an empty cache of the type that this model computes in, on its device."""
        weight = self.model.norm.weight  # matrices may be codes
        kind = weight.device.type
        is_cast = not weight.is_meta and torch.is_autocast_enabled(kind)
        return KVCache(
            self.config,
            batch_size=batch_size,
            max_tokens=max_tokens,
            dtype=torch.get_autocast_dtype(kind) if is_cast else weight.dtype,
            device=weight.device,
            padding=padding,
        )

    def _check_room(self, new_tokens: int, cache: KVCache | None) -> None:
        start, room = (0, self.config.max_position_embeddings) if cache is None else (cache.length, cache.max_tokens)
        room = min(room, self.config.max_position_embeddings)
        if start + new_tokens > room:
            raise ValueError(f"{start} + {new_tokens} tokens do not fit in {room}")
