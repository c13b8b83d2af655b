"""The weights a model starts from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alm.model.transformer import Transformer

STD = 0.02
RESIDUAL_OUTPUTS = ("o_proj.weight", "down_proj.weight")
# Vectors that do not start from 1: what they scale is absent at first, or half there.
STARTS = {"x0_scale": 0.0, "smear": 0.0, "value_scale": 0.5}


def initialize(model: Transformer, *, seed: int) -> None:
    """Fills every parameter: vectors with 1 or with `STARTS`, matrices with normal values of standard deviation `STD`.

    What is added to the residual stream is scaled by 1 / sqrt(2 n_layers), so that its variance does not grow with
    depth (GPT-2: Radford et al. 2019, section 2.3). Values are drawn on the CPU in fp32 from a generator of their own:
    the same seed gives the same bits whatever the device.
    """
    generator = torch.Generator().manual_seed(seed)
    residual_std = STD / math.sqrt(2 * model.config.n_layers)
    with torch.no_grad():
        # The state dictionary shares the memory, and has no rows that are no tokens.
        for name, parameter in model.state_dict().items():
            if parameter.dim() == 1:
                parameter.fill_(STARTS.get(name.rpartition(".")[2], 1.0))
            else:
                std = residual_std if name.endswith(RESIDUAL_OUTPUTS) else STD
                parameter.copy_(_normal(parameter, std=std, generator=generator))


def _normal(like: Tensor, *, std: float, generator: torch.Generator) -> Tensor:
    return torch.empty(like.shape, dtype=torch.float32).normal_(0.0, std, generator=generator)
