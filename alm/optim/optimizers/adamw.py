"""Kind `adamw`: Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from alm.config.base import Config as BaseConfig
from alm.optim.groups import FUSED_DEVICES, Moments, parameter_groups

if TYPE_CHECKING:
    import torch
    from torch import nn

# Each entry of a parameter is updated independently, so ranks can hold parts of it.
WORKS_ON_PARTS = True

Beta = Annotated[float, Field(ge=0, le=1 - 1e-6)]  # closer to 1, fp32 cannot distinguish it from 1


class Config(BaseConfig):
    """AdamW. Weight decay acts on matrices only."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(default=3.0e-4, gt=0, le=100, description="Peak learning rate.")
    embedding_lr: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="Peak learning rate of the embedding table and the head; absent: `lr`.",
    )
    scalar_lr: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="Peak learning rate of scalars and of vectors that are not gains; absent: `lr`.",
    )
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.95), description="Decay rates of the two moments.")
    weight_decay: float = Field(default=0.1, ge=0, le=100, description="Decoupled weight decay of matrices.")
    eps: float = Field(default=1.0e-8, ge=1e-30, le=1, description="Added to the square root of the second moment.")


def moments(config: Config) -> Moments:
    """Return the moments: the mean of gradients and of their squares, for every parameter."""
    return Moments(matrix=2, other=2)


def build(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of `model`, fused if the device has a fused kernel."""
    import torch

    device = next(model.parameters()).device.type
    return torch.optim.AdamW(
        parameter_groups(
            model,
            lr=config.lr,
            embedding_lr=config.embedding_lr or config.lr,
            weight_decay=config.weight_decay,
            scalar_lr=config.scalar_lr,
        ),
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=device in FUSED_DEVICES,
    )
