"""The rows of a batch, each at a place of its own in a text of its own. B rows, V vocabulary."""

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
    """What a model remembers of the texts in its rows; each row has room for `max_tokens`."""

    def prefill(self, row: int, ids: Sequence[int]) -> Tensor:
        """Forget what is in `row` and read `ids` into it: the scores (V,) of the token that follows."""
        ...

    def share(self, source: int, row: int, tokens: int) -> bool:
        """Let `row` hold the first `tokens` tokens of `source` alone; False where they have to be read again."""
        ...

    def step(self, rows: Sequence[int], ids: Sequence[int]) -> Tensor:
        """Append an id to each of `rows`: the scores (B, V) of the tokens that follow, in that order."""
        ...


def rows_for(model: Transformer, *, count: int, max_tokens: int, plain: bool = False) -> Rows:
    """`count` rows of `model`, in the fastest way that its device and its shape allow.

    With `plain` as training computes: where weights are about to change. `ALM_KERNELS=never` does the same for all.
    """
    device = model.head_weight.device.type
    is_fast = not plain and os.environ.get("ALM_KERNELS") != "never"
    if is_fast and is_llama(model.config) and model.head_weight.dtype == torch.float32:
        if device == "cpu" and compiling.is_installed():
            from alm.generation.compiled_rows import CompiledRows

            return CompiledRows(model, count=count, max_tokens=max_tokens)
        if device in ("cuda", "mps"):
            from alm.generation.static_rows import StaticRows

            return StaticRows(model, count=count, max_tokens=max_tokens)
    from alm.generation.plain_rows import PlainRows

    return PlainRows(model, count=count, max_tokens=max_tokens)


def must_compile(model: Transformer) -> bool:
    """Whether `rows_for` has to compile loops first, which takes seconds: as far as the disk knows."""
    is_wanted = os.environ.get("ALM_KERNELS") != "never" and compiling.is_installed()
    is_known = model.head_weight.device.type == "cpu" and is_llama(model.config)
    return is_wanted and is_known and not compiling.is_warm(compiling.folder(KERNELS))


def is_llama(config: ModelConfig) -> bool:
    """Whether a model is a plain Llama or Qwen3, perhaps with windows: all that the fast ways know."""
    is_usual = [
        getattr(part, "kind", "") for part in (config.positions, config.feedforward, config.attention)
    ] == _LLAMA
    has_extras = config.x0_skip or config.value_residual or config.smear
    return is_usual and not has_extras and not getattr(config.attention, "document_mask", False)
