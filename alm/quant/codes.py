"""Matrices of small integers with scales, and how weights become them.

N rows (outputs), W columns (inputs), G = W / `GROUP` groups in a row. A value is its code times its scale. Scales are
fp16 numbers, so that the codes of a file are those of GGUF's Q8_0 and Q4_0, which hold them so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alm.errors import ArtifactError

TypeName = Literal["int8", "int4"]

GROUP = 32
"""Columns that share a scale in int4."""
LARGEST_INT8 = 127
LEAST_INT4, LARGEST_INT4 = -8, 7
PACKED_ZERO = 0x88
"""A byte of two int4 codes of zero."""

# Scales that are tried for a group, as shares of the one that just holds its largest value: rounding a few large values
# may cost less than a coarse grid for all.
_SHARES = torch.linspace(0.7, 1.15, 19).tolist()
_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class Int8Matrix:
    """`codes` (N, W) int8, from -127 to 127, and a scale for each row: `scales` (N,) fp16."""

    codes: Tensor
    scales: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """N and W."""
        return self.codes.shape[0], self.codes.shape[1]

    def rows(self, numbers: Tensor) -> Tensor:
        """Return the values (..., W) of the rows `numbers` (...), in fp32."""
        return self.codes[numbers].float() * self.scales[numbers].float()[..., None]

    def dequantized(self) -> Tensor:
        """Return all values (N, W) in fp32."""
        return self.codes.float().mul_(self.scales.float()[:, None])


@dataclass(frozen=True)
class Int4Matrix:
    """`codes` (N, W / 2) uint8, each of two codes, and a scale for each group: `scales` (N, G) fp16.

    Byte j of the 16 of a group holds code j in its low half and code j + 16 in its high half, each plus 8: the order of
    Q4_0, in which one mask yields 16 neighbours.
    """

    codes: Tensor
    scales: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """N and W."""
        return self.codes.shape[0], self.codes.shape[1] * 2

    def rows(self, numbers: Tensor) -> Tensor:
        """Return the values (..., W) of the rows `numbers` (...), in fp32."""
        return _unpacked(self.codes[numbers], self.scales[numbers])

    def dequantized(self) -> Tensor:
        """Return all values (N, W) in fp32."""
        return _unpacked(self.codes, self.scales)


Matrix = Int8Matrix | Int4Matrix


def in_numbers(weights: Mapping[str, Tensor | Matrix]) -> dict[str, Tensor]:
    """Return `weights` in fp32, with the values of codes; a tensor shares its memory."""
    return {name: value if isinstance(value, Tensor) else value.dequantized() for name, value in weights.items()}


def fits_int4(shape: tuple[int, ...]) -> bool:
    """Whether a matrix of this shape consists of groups."""
    return shape[1] % GROUP == 0


def to_int8(weight: Tensor) -> Int8Matrix:
    """Round `weight` (N, W) to 255 levels in each row, the outermost of which is the row's largest value."""
    _check(weight, LARGEST_INT8)
    scales = (weight.abs().amax(1) / LARGEST_INT8).half()
    return Int8Matrix(_rounded(weight, scales.float()[:, None], -LARGEST_INT8, LARGEST_INT8).to(torch.int8), scales)


def to_int4(weight: Tensor, importance: Tensor | None = None) -> Int4Matrix:
    """Round `weight` (N, W) to 16 levels in each group, with the scales that cost least.

    `importance` (W,) weighs the squared error of each column (absent: all alike).
    """
    parts = torch.split(weight, _ROWS_AT_A_TIME)
    scales = torch.cat([best_scales(_grouped(part), _of_columns(importance)) for part in parts])
    codes = [_codes_int4(part, some) for part, some in zip(parts, torch.split(scales, _ROWS_AT_A_TIME), strict=True)]
    return Int4Matrix(packed(torch.cat(codes)), scales)


def _codes_int4(weight: Tensor, scales: Tensor) -> Tensor:
    return _rounded(_grouped(weight), scales.float()[..., None], LEAST_INT4, LARGEST_INT4).flatten(1)


def best_scales(groups: Tensor, importance: Tensor | None = None) -> Tensor:
    """Return the fp16 scale (...) of each of `groups` (..., 32) that makes the weighted squared error least.

    16 levels have one more below zero than above, so the sign of a scale matters: as in Q4_0 it gives that level to the
    value with the largest magnitude.
    """
    _check(groups, -LEAST_INT4)
    weights = torch.ones_like(groups) if importance is None else importance.expand_as(groups)
    extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))[..., 0] / LEAST_INT4  # (...)
    best = torch.zeros_like(extreme)
    least = torch.full_like(extreme, torch.inf)
    for share in _SHARES:
        codes = _rounded(groups, (extreme * share)[..., None], LEAST_INT4, LARGEST_INT4)
        # The best scale for these codes, by least squares.
        scale = ((weights * groups * codes).sum(-1) / (weights * codes * codes).sum(-1).clamp_min(1e-30)).half().float()
        codes = _rounded(groups, scale[..., None], LEAST_INT4, LARGEST_INT4)
        error = (weights * (groups - codes * scale[..., None]).square()).sum(-1)
        is_better = error < least
        best, least = torch.where(is_better, scale, best), torch.where(is_better, error, least)
    return best.half()


def _check(values: Tensor, levels: int) -> None:
    """Raise `ArtifactError` if a scale in fp16 cannot hold the largest of `values`, or if it is not finite."""
    largest, most = values.abs().amax().item(), levels * torch.finfo(torch.float16).max
    if not largest <= most:
        raise ArtifactError(
            f"values up to {largest:g} are beyond {most:g}, the most that codes with fp16 scales can hold",
            hint="use an earlier checkpoint: the training diverged",
        )


def packed(codes: Tensor) -> Tensor:
    """Pack codes (N, W) from -8 to 7 into bytes (N, W / 2)."""
    low, high = (codes.to(torch.int16) - LEAST_INT4).to(torch.uint8).view(len(codes), -1, 2, GROUP // 2).unbind(2)
    return (low | (high << 4)).flatten(1)


def unpacked(codes: Tensor) -> Tensor:
    """Return the codes (..., W) int8 in bytes (..., W / 2): the reverse of `packed`."""
    bytes_ = codes.view(*codes.shape[:-1], -1, GROUP // 2)
    both = torch.stack((bytes_ & 15, bytes_ >> 4), dim=-2)  # (..., G, 2, 16)
    return (both.to(torch.int8) + LEAST_INT4).flatten(-3)


def _unpacked(codes: Tensor, scales: Tensor) -> Tensor:
    values = unpacked(codes).float()
    return values.view(*scales.shape, GROUP).mul_(scales.float()[..., None]).view(values.shape)


def _grouped(weight: Tensor) -> Tensor:
    return weight.view(len(weight), -1, GROUP)


def _of_columns(importance: Tensor | None) -> Tensor | None:
    return None if importance is None else importance.view(1, -1, GROUP)


def _rounded(values: Tensor, scales: Tensor, least: int, most: int) -> Tensor:
    """Return the nearest codes; a scale of zero, of values that are all too small, has codes of zero."""
    safe = torch.where(scales == 0, torch.inf, scales)
    return (values / safe).round_().clamp_(least, most)
