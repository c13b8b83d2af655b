"""A Llama as a textbook writes it in PyTorch, with the parameter names of its checkpoints: the bar to be ahead of.

B batch, T tokens, P positions, D model width, E head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alm.model.config import ModelConfig


class Block(nn.Module):
    """Pre-norm attention and SwiGLU, as a textbook writes them."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.width = c.n_heads, c.n_kv_heads, c.head_width
        self.input_layernorm = nn.RMSNorm(c.d_model, eps=c.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(c.d_model, eps=c.norm_eps)
        sizes = {"q": self.heads, "k": self.kv_heads, "v": self.kv_heads}
        self.self_attn = nn.ModuleDict(
            {f"{name}_proj": nn.Linear(c.d_model, n * self.width, bias=False) for name, n in sizes.items()}
        )
        self.self_attn["o_proj"] = nn.Linear(self.heads * self.width, c.d_model, bias=False)
        self.mlp = nn.ModuleDict(
            {f"{name}_proj": nn.Linear(c.d_model, c.ffn_hidden_size, bias=False) for name in ("gate", "up")}
        )
        self.mlp["down_proj"] = nn.Linear(c.ffn_hidden_size, c.d_model, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # (B, T, D), (T, E), (T, E) -> (B, T, D)
        """The block's output."""
        y = self.input_layernorm(x)
        q, k, v = (self.self_attn[f"{name}_proj"](y).unflatten(-1, (-1, self.width)).transpose(1, 2) for name in "qkv")
        q, k = (t * cos + torch.cat((-t[..., self.width // 2 :], t[..., : self.width // 2]), -1) * sin for t in (q, k))
        y = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True, enable_gqa=True)
        x = x + self.self_attn["o_proj"](y.transpose(1, 2).flatten(2))
        y = self.post_attention_layernorm(x)
        return x + self.mlp["down_proj"](F.silu(self.mlp["gate_proj"](y)) * self.mlp["up_proj"](y))


class Plain(nn.Module):
    """A Llama with tied embeddings and the names that checkpoints have."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"embed_tokens": nn.Embedding(c.known_vocab_size, c.d_model)})
        self.model["layers"] = nn.ModuleList(Block(c) for _ in range(c.n_layers))
        self.model["norm"] = nn.RMSNorm(c.d_model, eps=c.norm_eps)
        rates = c.rope_theta ** -(torch.arange(0, c.head_width, 2) / c.head_width)
        angles = torch.outer(torch.arange(c.max_position_embeddings), rates).repeat(1, 2)
        self.cos, self.sin = angles.cos(), angles.sin()  # (P, E)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:  # (B, T), (B, T) -> ()
        """The mean loss."""
        x = self.model["embed_tokens"](inputs)
        for block in self.model["layers"]:
            x = block(x, self.cos[: inputs.shape[1]], self.sin[: inputs.shape[1]])
        logits = F.linear(self.model["norm"](x), self.model["embed_tokens"].weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
