"""Rows of a batch, each at its own place in its own text. B rows, V vocabulary."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from alm import compiling
from alm.model.config import ModelConfig
from alm.model.transformer import Transformer

_LLAMA = ["rope", "swiglu", "grouped"]
KERNELS = Path(__file__).with_name("_kernels.py")


class Rows(Protocol):
    """A model with its state for the text in each row; a row has room for `max_tokens` tokens."""

    def prefill(self, row: int, ids: Sequence[int]) -> Tensor:
        """Replace the text of `row` by `ids`, and return the scores (V,) of the next token."""
        ...

    def share(self, source: int, row: int, tokens: int) -> bool:
        """Replace the text of `row` by the first `tokens` tokens of `source`; False if it has to read them itself."""
        ...

    def step(self, rows: Sequence[int], ids: Sequence[int]) -> Tensor:
        """Append an id to each of `rows`, and return the scores (B, V) of the next tokens, in that order."""
        ...


def rows_for(model: Transformer, *, count: int, max_tokens: int, plain: bool = False) -> Rows:
    """Create `count` rows of `model`, with the fastest backend for its device and shape.

    `plain` computes as in training, for a model whose weights are about to change. `ALM_KERNELS=never` forces it.
    """
    device = model.head_weight.device.type
    is_fast = not plain and os.environ.get("ALM_KERNELS") != "never"
    if is_fast and is_llama(model.config) and model.head_weight.dtype == torch.float32:
        if device == "cpu" and compiling.is_installed():
            from alm.generation.backends.numba_rows import CompiledRows

            return CompiledRows(model, count=count, max_tokens=max_tokens)
        if device in ("cuda", "mps"):
            from alm.generation.backends.cuda_graph_rows import StaticRows

            return StaticRows(model, count=count, max_tokens=max_tokens)
    from alm.generation.backends.torch_rows import PlainRows

    return PlainRows(model, count=count, max_tokens=max_tokens)


def must_compile(model: Transformer) -> bool:
    """Whether `rows_for` has to compile loops first, which takes seconds: no compiled code is on the disk."""
    is_wanted = os.environ.get("ALM_KERNELS") != "never" and compiling.is_installed()
    is_known = model.head_weight.device.type == "cpu" and is_llama(model.config)
    return is_wanted and is_known and not compiling.is_warm(compiling.folder(KERNELS))


def is_llama(config: ModelConfig) -> bool:
    """Whether a model is a plain Llama or Qwen3, perhaps with windows: the fast backends support no other."""
    is_usual = [
        getattr(part, "kind", "") for part in (config.positions, config.feedforward, config.attention)
    ] == _LLAMA
    has_extras = config.x0_skip or config.value_residual or config.smear
    return is_usual and not has_extras and not getattr(config.attention, "document_mask", False)
