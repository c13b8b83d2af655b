"""The weights a model starts from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alm.model.transformer import Transformer

STD = 0.02
RESIDUAL_OUTPUTS = ("o_proj.weight", "down_proj.weight")


def initialize(model: Transformer, *, seed: int) -> None:
    """Fills every parameter: gains with 1, matrices with normal values of standard deviation `STD`.

    What is added to the residual stream is scaled by 1 / sqrt(2 n_layers), so that its variance does not grow with
    depth (GPT-2: Radford et al. 2019, section 2.3). Values are drawn on the CPU in fp32 from a generator of their own:
    the same seed gives the same bits whatever the device.
    """
    generator = torch.Generator().manual_seed(seed)
    residual_std = STD / math.sqrt(2 * model.config.n_layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                std = residual_std if name.endswith(RESIDUAL_OUTPUTS) else STD
                parameter.copy_(_normal(parameter, std=std, generator=generator))


def _normal(like: Tensor, *, std: float, generator: torch.Generator) -> Tensor:
    return torch.empty(like.shape, dtype=torch.float32).normal_(0.0, std, generator=generator)
