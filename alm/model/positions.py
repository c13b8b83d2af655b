"""Position encodings: rotary (RoPE) and linear biases (ALiBi).

B batch, T tokens, P positions, H heads, E head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from alm.model.config import AlibiConfig, ModelConfig, RopeScaling


class Placement(Protocol):
    """Positions of the tokens of one forward pass."""

    @property
    def slopes(self) -> Tensor | None:
        """Fall of each head's scores per token of distance, (H,); None if they do not fall."""
        ...

    def rotate(self, x: Tensor) -> Tensor:
        """Return queries or keys (B, T, heads, E) with their positions applied."""
        ...


class Positions(Protocol):
    """A position encoding, shared by all layers."""

    def __call__(self, start: int, length: int) -> Placement:
        """Return the placement of the tokens `start` to `start + length - 1`. Only their distances may matter."""
        ...


def build(config: ModelConfig) -> Positions:
    """Build the position encoding of a model, for every position up to `max_position_embeddings`."""
    if isinstance(config.positions, AlibiConfig):
        return LinearBiases(config.n_heads)
    frequencies, factor = rope_frequencies(config.head_width, config.rope_theta, config.positions.scaling)
    return Rotary(frequencies, max_positions=config.max_position_embeddings, factor=factor)


# ---- rotary ------------------------------------------------------------------------------------------------


class Rotary(nn.Module):
    """The rotations of all positions, computed once, always in fp32.

    Pairs (i, i + E/2), as in Llama, are rotated by position x theta^(-2i/E) (Su et al. 2021, arXiv:2104.09864,
    equation 34).
    """

    cos: Tensor
    sin: Tensor
    frequencies: Tensor

    def __init__(self, frequencies: Tensor, *, max_positions: int, factor: float = 1.0) -> None:
        """Compute the angles of all positions from `frequencies` (E/2,) on the CPU. `factor` scales the results."""
        super().__init__()
        self.max_positions, self.factor = max_positions, factor
        # Not a buffer, so that it is neither cast nor moved.
        self.__dict__["frequencies"] = frequencies
        self._fill(torch.device("cpu"))

    def forward(self, start: int, length: int) -> Rotation:
        """Return the rotation of the positions `start` to `start + length - 1`."""
        return Rotation(self.cos[start : start + length], self.sin[start : start + length])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # `model.to(bfloat16)` would round the angles, and `to_empty` would leave them undefined.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._fill(self.cos.device)
        return self

    def _fill(self, device: torch.device) -> None:
        # On the CPU, so that every device has the same bits.
        places = torch.arange(self.max_positions, dtype=torch.float32, device="cpu")
        angles = torch.outer(places, self.frequencies)  # (P, E/2)
        self.register_buffer("cos", (angles.cos() * self.factor)[:, None].to(device), persistent=False)
        self.register_buffer("sin", (angles.sin() * self.factor)[:, None].to(device), persistent=False)


@dataclass(frozen=True)
class Rotation:
    """The angles of consecutive positions."""

    cos: Tensor  # (T, 1, E/2) fp32
    sin: Tensor  # (T, 1, E/2) fp32

    slopes: None = None

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate each pair of `x` (B, T, H, E) by the angle of its position."""
        if torch.is_grad_enabled() and x.requires_grad:
            return cast(Tensor, _Rotate.apply(x, self.cos, self.sin))  # type: ignore[no-untyped-call]
        return _rotate(x, self.cos, self.sin)


class _Rotate(torch.autograd.Function):
    """A rotation. Its gradient is the inverse rotation, so no tensor of the size of `x` is saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # Any: torch has no type for it
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotate(gradient, cos, -sin), None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    if x.dtype != torch.float32 or torch.compiler.is_compiling():
        turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
        return turned.to(x.dtype)
    # Written in place, which is a third faster than joining the halves afterwards.
    turned = torch.empty_like(x, memory_format=torch.contiguous_format)
    new_first, new_second = turned.chunk(2, dim=-1)
    torch.mul(first, cos, out=new_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=new_second).addcmul_(first, sin)
    return turned


def rope_frequencies(width: int, theta: float, scaling: RopeScaling) -> tuple[Tensor, float]:
    """Return the radians per token of each pair, (E/2,) in fp32 on the CPU, and the factor of cosines and sines."""
    pairs = torch.arange(0, width, 2, dtype=torch.float32, device="cpu")
    plain: Tensor = theta ** -(pairs / width)
    if scaling.method == "none":
        return plain, 1.0
    if scaling.method == "linear":
        return plain / scaling.factor, 1.0
    if scaling.method == "llama3":
        share = _llama3_share(plain, scaling)
        return plain / scaling.factor * share + plain * (1 - share), 1.0
    low, high = _yarn_ramp(width, theta, scaling)
    share = ((pairs / 2 - low) / (high - low)).clamp(0, 1)
    return plain / scaling.factor * share + plain * (1 - share), 0.1 * math.log(scaling.factor) + 1.0


def _llama3_share(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Return how much each pair is slowed down, from 0 for those that turn often to 1 for those that turn rarely."""
    length = scaling.original_max_position_embeddings
    assert length is not None
    turns = length * frequencies / (2 * math.pi)
    high, low = scaling.high_freq_factor, scaling.low_freq_factor
    return ((high - turns) / (high - low)).clamp(0, 1)


def _yarn_ramp(width: int, theta: float, scaling: RopeScaling) -> tuple[float, float]:
    """Return the pairs between which the slow-down sets in: those that turn `beta_fast` and `beta_slow` times."""
    length = scaling.original_max_position_embeddings
    assert length is not None

    def pair_that_turns(times: float) -> float:
        return width * math.log(length / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = max(0, math.floor(pair_that_turns(scaling.beta_fast)))
    high = min(width - 1, math.ceil(pair_that_turns(scaling.beta_slow)))
    return low, high + (0.001 if low == high else 0)


# ---- linear biases -----------------------------------------------------------------------------------------


class LinearBiases(nn.Module):
    """One slope for each head, always in fp32: scores fall linearly with distance.

    Press et al. 2022 ("Train Short, Test Long", arXiv:2108.12409, section 3).
    """

    slopes: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self._fill(torch.device("cpu"))

    def forward(self, start: int, length: int) -> Biases:
        """Return the slopes, which do not depend on the positions."""
        return Biases(self.slopes)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # `model.to(bfloat16)` would round the slopes, and `to_empty` would leave them undefined.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._fill(self.slopes.device)
        return self

    def _fill(self, device: torch.device) -> None:
        slopes = torch.tensor(alibi_slopes(self.heads), dtype=torch.float32, device=device)
        self.register_buffer("slopes", slopes, persistent=False)


@dataclass(frozen=True)
class Biases:
    """The slopes, for tokens at any position: only distances matter."""

    slopes: Tensor  # (H,) fp32

    def rotate(self, x: Tensor) -> Tensor:
        """Return queries and keys unchanged."""
        return x


def alibi_slopes(heads: int) -> list[float]:
    """Return the slopes: 2^(-8/H), 2^(-16/H) and so on if H is a power of two.

    For another H, they are those of the next smaller power of two, then every second one of twice that power (the
    authors' `get_slopes`, github.com/ofirpress/attention_with_linear_biases).
    """
    power = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    return first + [2 ** (-8 * (head + 1) / (2 * power)) for head in range(0, 2 * (heads - power), 2)]
