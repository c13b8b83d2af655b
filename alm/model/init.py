"""Initial weights of a model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alm.model.config import ModelConfig
from alm.model.transformer import Transformer

STD = 0.02
VALUES, OUTPUTS = "v_proj.weight", "o_proj.weight"
RESIDUAL_OUTPUTS = (OUTPUTS, "down_proj.weight")
# Vectors that do not start from 1, so that what they add is absent at first, or at half strength.
STARTS = {"x0_scale": 0.0, "smear": 0.0, "value_scale": 0.5, "bias": 0.0}


def initialize(model: Transformer, *, seed: int) -> None:
    """Fill every parameter: vectors with 1 or with `STARTS`, matrices with normal values of standard deviation `STD`.

    Outputs to the residual stream are scaled by 1 / sqrt(2 n_layers), so that its variance does not grow with depth
    (GPT-2: Radford et al. 2019, section 2.3). Values are drawn on the CPU in fp32 from a separate generator, so the
    same seed gives the same bits on any device. With `copy_init`, `_make_copy` initializes the attention.
    """
    generator = torch.Generator().manual_seed(seed)
    residual_std = STD / math.sqrt(2 * model.config.n_layers)
    with torch.no_grad():
        # The tensors of the state dictionary share the parameters' memory, and leave out the padding rows of tables.
        weights = model.state_dict()
        for name, parameter in weights.items():
            if parameter.dim() == 1:
                parameter.fill_(STARTS.get(name.rpartition(".")[2], 1.0))
            else:
                std = residual_std if name.endswith(RESIDUAL_OUTPUTS) else STD
                parameter.copy_(_normal(parameter, std=std, generator=generator))
        if model.config.copy_init:
            for name in (name for name in weights if name.endswith(VALUES)):
                _make_copy(weights[name], weights[name.removesuffix(VALUES) + OUTPUTS], model.config)


def _make_copy(values: Tensor, outputs: Tensor, config: ModelConfig) -> None:
    """Make an attention pass on its input: on average, `outputs @ values` is `copy_init` times the identity.

    Each head's part of `outputs` (d_model, heads) is the transpose of its `values` (key heads, d_model): half of the
    mimetic initialization of Trockman & Kolter 2023 (arXiv:2305.09828), with the sign of trained language models.
    With tied embeddings, a token that is attended to becomes more likely, so queries and keys have a useful gradient
    from the first step (docs/benchmarks.md).
    """
    group = config.n_heads // config.n_kv_heads
    values.mul_(math.sqrt(config.copy_init / len(values)) / STD)
    heads = values.view(config.n_kv_heads, -1, config.d_model).repeat_interleave(group, dim=0)
    outputs.copy_(heads.flatten(0, 1).T / group)


def _normal(like: Tensor, *, std: float, generator: torch.Generator) -> Tensor:
    return torch.empty(like.shape, dtype=torch.float32).normal_(0.0, std, generator=generator)
