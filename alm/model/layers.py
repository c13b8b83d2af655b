"""Layers that attention and feed-forward are made of: norm, matrices, embedding and dropout.

B batch, T tokens, D model width, V vocabulary, N rows, W width.
"""

from __future__ import annotations

import math
from hashlib import sha256
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from alm.model.config import padded

# ---- normalization -----------------------------------------------------------------------------------------


class RMSNorm(nn.Module):
    """Computes x / sqrt(mean(x^2) + eps) * weight over the last dimension, in at least fp32.

    Zhang and Sennrich 2019 (arXiv:1910.07467, equation 4).
    """

    def __init__(self, width: int, *, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:  # (..., W) -> the same shape and type
        if x.dtype == self.weight.dtype:
            return self._normalize(x)
        # For heads under autocast, whose result would otherwise take the type of the weight.
        return self._normalize(x.to(self.weight.dtype)).to(x.dtype)

    def _normalize(self, x: Tensor) -> Tensor:
        is_eager = not torch.compiler.is_compiling()
        if x.device.type == "cpu" and x.dtype == torch.float32 and torch.is_grad_enabled() and is_eager:
            # PyTorch has a fused kernel for other devices. Here, its backward pass is several times slower than this.
            return cast(Tensor, _RMSNorm.apply(x, self.weight, self.eps))  # type: ignore[no-untyped-call]
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class _RMSNorm(torch.autograd.Function):
    """Saves the input and one number per row. PyTorch's own chain of operations saves three tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:  # Any: torch has no type for it
        rows = x.reshape(-1, x.shape[-1])  # (N, W)
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        scale = norms.square_().div_(rows.shape[1]).add_(eps).rsqrt_()  # (N, 1)
        ctx.save_for_backward(rows, weight, scale)
        return cast(Tensor, (rows * scale).mul_(weight).view(x.shape))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """Compute, with n = x scale: dx = scale (g w - n mean(g w n)) and dw = sum over rows of g n."""
        rows, weight, scale = ctx.saved_tensors
        g = gradient.reshape(rows.shape)
        normalized = rows * scale
        product = g * normalized
        # A sum, because autocast would round a matrix product to its type.
        mean = (product * weight).sum(1, keepdim=True).div_(-rows.shape[1])
        dx = normalized.mul_(mean).addcmul_(g, weight).mul_(scale)
        return dx.view(gradient.shape), product.sum(0), None


# ---- matrices ----------------------------------------------------------------------------------------------


class Linear(nn.Linear):
    """Computes x @ weight.T + bias. `weight` (out, in) and `bias` (out,), absent by default, start at zero.

    `initialize` or `load_state_dict` fills them.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias=bias)
        # Of an adapter, if the layer gets one (`alm.model.lora`).
        self.lora_A: Linear | None = None
        self.lora_B: Linear | None = None
        self.lora_scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of `x` (..., in)."""
        found = F.linear(x, self.weight, self.bias)
        if self.lora_A is None or self.lora_B is None:
            return found
        return cast(Tensor, found + self.lora_scale * self.lora_B(self.lora_A(x)))

    def reset_parameters(self) -> None:
        """Fill with zeros. PyTorch's own method would draw from the global generator in the constructor."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class PaddedEmbedding(nn.Module):
    """A row of width D for each token id: `weight` (V rounded up, D), of which only V rows are visible outside.

    The padding rows are zero and stay zero: no id refers to them, and the loss and `Transformer.logits` leave them out.
    State dictionaries hold V rows.
    """

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.weight = nn.Parameter(torch.zeros(padded(vocab_size), width))
        self.register_state_dict_post_hook(_without_padding)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_padding)  # type: ignore[no-untyped-call]

    def forward(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, D)
        is_padded = len(self.weight) != self.vocab_size
        return F.embedding(ids, self.weight[: self.vocab_size] if is_padded else self.weight)

    def scores(self, hidden: Tensor) -> Tensor:
        """Return scores (..., V) of the next token from hidden states (..., D)."""
        return F.linear(hidden, self.weight)[..., : self.vocab_size]


def table_rows(model: nn.Module) -> dict[int, int]:
    """Return V for each padded embedding, by the `id` of its parameter."""
    found = [module for module in model.modules() if isinstance(module, PaddedEmbedding)]
    return {id(each.weight): each.vocab_size for each in found if len(each.weight) != each.vocab_size}


def with_rows(tensor: Tensor, rows: int) -> Tensor:
    """Return `tensor` with `rows` rows: a cut copy, or with zeros appended."""
    if len(tensor) > rows:
        return tensor[:rows].clone()
    return F.pad(tensor, (0, 0, 0, rows - len(tensor))) if len(tensor) < rows else tensor


def _without_padding(module: nn.Module, state: dict[str, Any], prefix: str, metadata: object) -> None:
    assert isinstance(module, PaddedEmbedding)
    if padded(module.vocab_size) != module.vocab_size:
        state[f"{prefix}weight"] = state[f"{prefix}weight"][: module.vocab_size]


def _with_padding(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    assert isinstance(module, PaddedEmbedding)
    weight = state.get(f"{prefix}weight")
    if weight is not None and len(weight) == module.vocab_size:
        state[f"{prefix}weight"] = with_rows(weight, padded(module.vocab_size))


# ---- dropout -----------------------------------------------------------------------------------------------
# Masks belong to sequences, so they do not depend on the micro-batches or ranks of a step (Srivastava et al. 2014,
# "Dropout", JMLR 15). Each sequence has a key. Its random words are key xor counter, mixed as in SplitMix64 (Steele,
# Lea and Flood 2014, "Fast splittable pseudorandom number generators", section 5): integer arithmetic without a state,
# equal on every device.


def _signed(number: int) -> int:
    """Return the int64 with the same bits."""
    return number - 2**64 if number >= 2**63 else number


_MIX = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)), (31, None))
# A word of 64 bits decides four values, so a probability is rounded to a multiple of 2^-16.
_LANES, _LEVELS = 4, 2**16


def step_keys(count: int, *, seed: int, step: int, first: int) -> Tensor:
    """Return the keys (count,) int64 of the sequences of `step` from number `first`, counted over all ranks."""
    digests = (sha256(f"{seed}/{step}/{place}".encode()).digest() for place in range(first, first + count))
    return torch.tensor([int.from_bytes(digest[:8], "little", signed=True) for digest in digests], dtype=torch.int64)


def random_keys(count: int, device: torch.device) -> Tensor:
    """Return keys (count,) for sequences outside any step, from PyTorch's own random numbers."""
    return torch.randint(-(2**63), 2**63 - 1, (count,), device=device)


def drop(x: Tensor, probability: float, keys: Tensor, *, site: int) -> Tensor:
    """Set a share of the values of `x` (B, T, D) to zero, and scale the others up to keep the mean.

    `site` is the number of this place in the model, from 0. Each place has its own masks.
    """
    dropped = min(round(probability * _LEVELS), _LEVELS - 1)  # never all of them
    return (x * _kept(x.shape, dropped, keys, site)).mul_(_LEVELS / (_LEVELS - dropped))


def _kept(shape: torch.Size, dropped: int, keys: Tensor, site: int) -> Tensor:
    """Return the mask (B, T, D) of the kept values."""
    batch, *rest = shape
    values = math.prod(rest)
    words = -(-values // _LANES)
    counters = torch.arange(site * words, (site + 1) * words, device=keys.device)
    found = keys[:, None] ^ counters  # (B, words)
    for shift, factor in _MIX:
        found ^= (found >> shift) & (2 ** (64 - shift) - 1)  # masked: shifting fills with the sign
        if factor is not None:
            found *= factor  # int64 wraps around
    levels = found.view(torch.int16)[:, :values]
    return (levels >= dropped - _LEVELS // 2).view(batch, *rest)
