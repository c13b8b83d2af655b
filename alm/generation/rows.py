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

    With `plain` as training computes: where weights are about to change.
    """
    device = model.head_weight.device.type
    if not plain and is_llama(model.config) and model.head_weight.dtype == torch.float32:
        if device == "cpu" and uses_kernels():
            from alm.generation.compiled_rows import CompiledRows

            return CompiledRows(model, count=count, max_tokens=max_tokens)
        if device in ("cuda", "mps"):
            from alm.generation.static_rows import StaticRows

            return StaticRows(model, count=count, max_tokens=max_tokens)
    from alm.generation.plain_rows import PlainRows

    return PlainRows(model, count=count, max_tokens=max_tokens)


def uses_kernels() -> bool:
    """Whether compiled code is there and wanted: `ALM_KERNELS=never` does without."""
    return os.environ.get("ALM_KERNELS") != "never" and compiling.is_installed()


def is_cold() -> bool:
    """Whether the compiled code that would be used has to be compiled first, which takes seconds."""
    return uses_kernels() and not compiling.is_warm(compiling.folder(KERNELS))


def is_llama(config: ModelConfig) -> bool:
    """Whether a model is a plain Llama or Qwen3, perhaps with windows: all that the fast ways know."""
    is_usual = (config.positions.kind, config.feedforward.kind, config.attention.kind) == ("rope", "swiglu", "grouped")  # type: ignore[attr-defined]
    has_extras = config.x0_skip or config.value_residual or config.smear
    return is_usual and not has_extras and not getattr(config.attention, "document_mask", False)
