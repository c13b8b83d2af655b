"""Rows on a GPU: one step for all rows with tensors at fixed addresses, so that CUDA can replay it as a graph.

Launching some hundred small kernels takes the host longer than the kernels themselves run; a graph is launched once
(pytorch.org/docs, "CUDA Graphs"). B rows, D model width, H query heads, K key/value heads, E head width, V vocabulary,
S places that attention reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from alm.model.transformer import Block, Transformer

# Attention reads a multiple of this many places: a graph has fixed shapes, and each graph costs memory.
_SPAN = 256
_WARM_UPS = 3
_Graph = tuple["torch.cuda.CUDAGraph", Tensor]


class FixedShapeRows:
    """Rows of a model for which `ModelConfig.is_llama` holds."""

    def __init__(self, model: Transformer, *, count: int, max_tokens: int) -> None:
        self._model, self._max_tokens = model, max_tokens
        device = model.device
        self._cache = model.new_cache(batch_size=count, max_tokens=max_tokens)
        self._lengths = [0] * count
        self._ids = torch.zeros(count, dtype=torch.int64, device=device)
        self._places = torch.zeros(count, dtype=torch.int64, device=device)
        self._numbers = torch.arange(count, device=device)
        self._graphs: dict[int, _Graph] = {}

    @torch.inference_mode()
    def prefill(self, row: int, ids: Sequence[int], kept: int = 0) -> Tensor:
        """Compute the scores (V,) of the token after `ids`, of which the row has read the first `kept`."""
        new = torch.tensor([ids[kept:]], device=self._ids.device)
        hidden = self._model(new, self._cache.row(row, length=kept))
        self._lengths[row] = len(ids)
        return self._model.logits(hidden[0, -1]).float().cpu()

    @torch.inference_mode()
    def share(self, source: int, row: int, tokens: int) -> bool:
        """Copy keys and values: a row has no other state."""
        self._cache.copy_row(source, row, tokens)
        self._lengths[row] = tokens
        return True

    @torch.inference_mode()
    def step(self, rows: Sequence[int], ids: Sequence[int]) -> Tensor:
        """Compute the scores (B, V) of the tokens after `ids`. Other rows are computed too, but do not change."""
        given = self._ids.new_zeros(len(self._ids), device="cpu")
        given[list(rows)] = torch.tensor(ids)
        self._ids.copy_(given)
        # An idle row writes garbage after its last token: that place is written again before it is read.
        places = torch.tensor(self._lengths).clamp_max(self._max_tokens - 1)
        self._places.copy_(places)
        longest = max(self._lengths[row] for row in rows) + 1
        if longest > self._max_tokens:
            raise ValueError(f"a row is full: it has room for {self._max_tokens} tokens")
        span = min(-(-longest // _SPAN) * _SPAN, self._max_tokens)
        scores = self._replayed(span) if self._ids.device.type == "cuda" else self._scores(span)
        scores = scores.float().cpu()
        for row in rows:
            self._lengths[row] += 1
        return scores[list(rows)]

    def _replayed(self, span: int) -> Tensor:
        """Compute `_scores` by a graph, captured at the first use of `span`."""
        if span not in self._graphs:
            with torch.cuda.device(self._ids.device):
                self._graphs[span] = self._captured(span)
        graph, scores = self._graphs[span]
        graph.replay()
        return scores

    def _captured(self, span: int) -> _Graph:
        """Capture a graph, after warm-up runs on a side stream for the libraries (pytorch.org/docs, "CUDA Graphs")."""
        # A stream of this GPU: PyTorch's default stream for captures may belong to another one.
        aside = torch.cuda.Stream(self._ids.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                self._scores(span)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Graphs can share their memory, because the result of one is copied before another runs.
        pool = next((other.pool() for other, _ in self._graphs.values()), None)
        # "thread_local": CUDA calls of other threads do not break the capture.
        with torch.cuda.graph(graph, pool=pool, stream=aside, capture_error_mode="thread_local"):
            scores = self._scores(span)
        return graph, scores

    def _scores(self, span: int) -> Tensor:
        """Read `_ids` at `_places` and compute the scores (B, V) of the next tokens."""
        decoder: Any = self._model.model  # Any: modules of kinds
        x = decoder.embed_tokens(self._ids)  # (B, D)
        angles = (decoder.positions.cos[self._places], decoder.positions.sin[self._places])  # (B, 1, E/2)
        distances = self._places[:, None] - torch.arange(span, device=x.device)  # (B, S)
        for number, block in enumerate(decoder.layers):
            x = x + self._attention(block, number, x, angles, distances)
            x = x + block.mlp(block.post_attention_layernorm(x))
        return self._model.logits(decoder.norm(x))

    def _attention(
        self, block: Block, number: int, x: Tensor, angles: tuple[Tensor, Tensor], distances: Tensor
    ) -> Tensor:
        attention: Any = block.self_attn
        cache, span = self._cache.layers[number], distances.shape[1]
        normal = block.input_layernorm(x)
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        q, k, v = (part(normal).view(len(x), -1, attention.head_width) for part in parts)  # (B, H or K, E)
        if attention.q_norm is not None:
            q, k = attention.q_norm(q), attention.k_norm(k)
        if attention.rotates:
            q, k = _turned(q, *angles), _turned(k, *angles)
        cache.keys.index_put_((self._numbers[:, None], _heads(k), self._places[:, None]), k)
        cache.values.index_put_((self._numbers[:, None], _heads(v), self._places[:, None]), v)
        visible = distances >= 0
        if attention.window is not None:
            visible = visible & (distances < attention.window)
            # The window of an idle row may be beyond the span: a softmax over nothing would be NaN.
            visible = visible | ~visible.any(1, keepdim=True)
        mixed = F.scaled_dot_product_attention(
            q[:, :, None],
            cache.keys[:, :, :span],
            cache.values[:, :, :span],
            attn_mask=visible[:, None, None],
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return cast(Tensor, attention.o_proj(mixed.flatten(1)))


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate `x` (B, heads, E) by the angles (B, 1, E/2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _heads(x: Tensor) -> Tensor:
    return torch.arange(x.shape[1], device=x.device)[None]
