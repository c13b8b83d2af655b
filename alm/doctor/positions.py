"""Checks of rotary positions: a rotation keeps lengths, and only distances count. T tokens, E head width."""

from __future__ import annotations

import torch
from torch import Tensor

from alm.doctor.check import Check, judged, remedy
from alm.doctor.tolerance import UNIT
from alm.model.positions import Positions

NORMS, DISTANCES = "RoPE keeps lengths", "RoPE counts distances"
_CONFIDENCE = 4.0


def keeps_lengths(positions: Positions, *, tokens: int, width: int, device: torch.device) -> Check:
    """Check that a vector has the same length before and after its rotation, at every position."""
    vectors = _vector(width, seed=1).repeat(1, tokens, 1, 1).to(device)
    turned = positions(0, tokens).rotate(vectors)
    before, after = (x.cpu().double().norm(dim=-1) for x in (vectors, turned))
    found = float(((after - before).abs() / before).max())
    bound = _CONFIDENCE * 4 * UNIT["fp32"]
    return judged(
        NORMS,
        holds=found <= bound,
        measured=f"off by {found:.1e} of the length at most",
        wanted=f"below {bound:.1e}: two products and a sum, and the table's own rounding",
        cause="queries and keys are not rotated but stretched",
        cure=remedy(device),
    )


def counts_distances(positions: Positions, *, tokens: int, width: int, device: torch.device) -> Check:
    """Check that the score of two tokens depends on their distance, and on nothing else about their positions."""
    query, key = (_vector(width, seed=seed).repeat(1, tokens, 1, 1).to(device) for seed in (1, 2))
    placement = positions(0, tokens)
    q, k = (placement.rotate(x)[0, :, 0].cpu().double() for x in (query, key))
    scores = q @ k.T / (q[0].norm() * k[0].norm())  # (T, T), cosines
    diagonals = [scores.diagonal(-distance) for distance in range(tokens // 2)]
    drift = max(float(diagonal.max() - diagonal.min()) for diagonal in diagonals)
    means = torch.stack([diagonal.mean() for diagonal in diagonals])
    is_flat = float(means.max() - means.min()) <= bound_of(tokens)
    return judged(
        DISTANCES,
        holds=drift <= bound_of(tokens) and not is_flat,
        measured="scores do not depend on distance" if is_flat else f"scores of one distance differ by {drift:.1e}",
        wanted=f"below {bound_of(tokens):.1e}, an angle's rounding at position {tokens:,}, and other scores at other "
        "distances",
        cause="tokens are not rotated at all: the model cannot know their order"
        if is_flat
        else "tokens are not rotated in proportion to their position",
        cure=remedy(device),
    )


def bound_of(tokens: int) -> float:
    """Return how far cosines may drift: an angle of `tokens` radians is rounded by that many units, in two vectors."""
    return _CONFIDENCE * tokens * UNIT["fp32"]


def _vector(width: int, *, seed: int) -> Tensor:
    return torch.randn(1, 1, 1, width, generator=torch.Generator().manual_seed(seed))
