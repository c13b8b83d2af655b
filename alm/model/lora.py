"""Low-rank adapters: a matrix W that is trained as W + scale * B A, with W frozen.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685, section 4.1. Names and initial
values of the tensors are those of PEFT: A (rank, inputs) is drawn, B (outputs, rank) starts at zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256

import torch
from torch import Tensor

from alm.errors import ConfigError
from alm.model.config import ModelConfig
from alm.model.layers import Linear
from alm.model.transformer import Transformer
from alm.model.weights import A_NAME, B_NAME, is_adapter, shapes_of

_WEIGHT = ".weight"


def adapter_shapes(model: ModelConfig, rank: int, targets: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return names and shapes of the adapters' tensors, for the matrices whose names end with one of `targets`."""
    found: dict[str, tuple[int, int]] = {}
    for name, shape in shapes_of(model).items():
        module = name.removesuffix(_WEIGHT)
        if module.rpartition(".")[2] in targets and len(shape) == 2:
            found[module + A_NAME], found[module + B_NAME] = (rank, shape[1]), (shape[0], rank)
    return found


def adapter_parameters(model: ModelConfig, rank: int, targets: Sequence[str]) -> int:
    """Return how many numbers are trained with such adapters."""
    return sum(math.prod(shape) for shape in adapter_shapes(model, rank, targets).values())


def add_adapters_(model: Transformer, *, rank: int, scale: float, targets: Sequence[str], seed: int) -> None:
    """Freeze the weights of `model` and give its matrices adapters. The model computes the same as before.

    Raises `ConfigError` for a target that no matrix is named after.
    A depends on the seed and the name of its matrix alone.
    """
    known = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, Linear)}
    for target in targets:
        if target not in known:
            raise ConfigError(
                f"`lora.targets`: no matrix of the model is named `{target}`",
                hint=f"use some of {', '.join(sorted(known))}",
            )
    model.requires_grad_(False)
    for name, module in _linears(model, targets):
        outputs, inputs = module.weight.shape
        module.lora_A, module.lora_B = Linear(inputs, rank), Linear(rank, outputs)
        module.lora_scale = scale
        key = sha256(f"{seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:6], "big"))
        # PEFT draws A as PyTorch draws a linear layer: uniform below 1 / sqrt(inputs).
        drawn = torch.empty(rank, inputs).uniform_(-1.0, 1.0, generator=generator) / math.sqrt(inputs)
        with torch.no_grad():
            module.lora_A.weight.copy_(drawn)


def _linears(model: Transformer, targets: Sequence[str]) -> Iterator[tuple[str, Linear]]:
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear) and name.rpartition(".")[2] in targets:
            yield name, module


def merged(weights: Mapping[str, Tensor], *, scale: float) -> dict[str, Tensor]:
    """Return the weights of the model that computes the same without adapters; those without one are shared."""
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        module = name.removesuffix(_WEIGHT)
        if module + A_NAME in weights:
            product = weights[module + B_NAME].float() @ weights[module + A_NAME].float()
            weight = (weight.float() + scale * product).to(weight.dtype)
        if not is_adapter(name):
            found[name] = weight
    return found
