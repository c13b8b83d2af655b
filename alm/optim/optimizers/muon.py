"""Kind `muon`: orthogonalized momentum for the matrices of the blocks (Jordan et al. 2024), AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from alm.config.base import Config as BaseConfig
from alm.optim.groups import FUSED_DEVICES, Moments, group, roles

if TYPE_CHECKING:
    import torch
    from torch import nn

# Sharded matrices are gathered for their update.
WORKS_ON_PARTS = True

# Measured at widths of 64, 128 and 320 (docs/benchmarks.md). Yang et al. 2022, "Tensor Programs V", table 8, also let
# the rate of output weights under Adam fall with the width, and a tied table is the output.
_EMBEDDING_LR_BY_WIDTH, _HIGHEST_EMBEDDING_LR = 0.03 * 128, 0.05

Beta = Annotated[float, Field(ge=0, le=1 - 1e-6)]  # closer to 1, fp32 cannot distinguish it from 1


class Config(BaseConfig):
    """Muon for matrices. Embeddings, head, gains and scalars use AdamW with their own rates, without decay."""

    kind: Literal["muon"] = "muon"
    lr: float = Field(default=0.02, gt=0, le=100, description="Peak learning rate of the matrices.")
    momentum: Beta = Field(default=0.95, description="Decay rate of the matrices' Nesterov momentum.")
    weight_decay: float = Field(default=0.1, ge=0, le=100, description="Decoupled weight decay of the matrices.")
    orthogonalization: Literal["polar_express", "newton_schulz"] = Field(
        default="polar_express",
        description="Polynomials that orthogonalize updates: those of Amsel et al. 2025, or Jordan's.",
    )
    steps: int = Field(
        default=5, ge=1, le=12, description="Number of polynomials to apply in a row; each costs the same."
    )
    scale: Literal["spectral", "rms"] = Field(
        default="spectral",
        description="Factor of each update: spectral is sqrt(max(1, rows / columns)); rms is "
        "0.2 sqrt(max(rows, columns)), which suits the learning rates of AdamW.",
    )
    embedding_lr: Annotated[float, Field(gt=0, le=100)] | Literal["auto"] = Field(
        default="auto",
        description="Peak learning rate of the embedding table; auto is 0.03 at a width of 128, in inverse proportion "
        "to the width, and at most 0.05.",
    )
    head_lr: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="Peak learning rate of an untied head; absent: `embedding_lr`.",
    )
    gain_lr: float = Field(default=0.003, gt=0, le=100, description="Peak learning rate of the gains of norms.")
    scalar_lr: float | None = Field(
        default=None, gt=0, le=100, description="Peak learning rate of scalars and other vectors; absent: `gain_lr`."
    )
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.95), description="Decay rates of AdamW's two moments.")
    eps: float = Field(default=1.0e-8, ge=1e-30, le=1, description="Added to the square root of AdamW's second moment.")


def moments(config: Config) -> Moments:
    """Return the moments: only the mean of gradients for a matrix, two for other parameters."""
    return Moments(matrix=1, other=2)


def _embedding_lr(config: Config, tables: Sequence[nn.Parameter]) -> float:
    if config.embedding_lr != "auto":
        return config.embedding_lr
    width = max((table.shape[1] for table in tables), default=1)
    return min(_HIGHEST_EMBEDDING_LR, _EMBEDDING_LR_BY_WIDTH / width)


def build(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of `model`, with AdamW fused if the device has a fused kernel."""
    from alm.optim.optimizers._muon import Muon, adamw_group, matrix_group

    found = roles(model)
    fused = next(model.parameters()).device.type in FUSED_DEVICES
    matrices = matrix_group(
        group(found.matrices, config.lr, weight_decay=config.weight_decay),
        momentum=config.momentum,
        method=config.orthogonalization,
        steps=config.steps,
        scale=config.scale,
    )
    embedding_lr = _embedding_lr(config, found.embeddings)
    others = (
        (found.embeddings, embedding_lr),
        (found.head, config.head_lr or embedding_lr),
        (found.gains, config.gain_lr),
        (found.scalars, config.scalar_lr or config.gain_lr),
    )
    groups = [adamw_group(group(p, lr), betas=config.betas, eps=config.eps, fused=fused) for p, lr in others if p]
    return Muon([matrices, *groups])
