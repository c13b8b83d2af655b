"""Weight matrices without bias, which are zero until `initialize` or `load_state_dict` fills them.

PyTorch's own layers would draw from the global generator in their constructor. B batch, T tokens, D model width,
V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alm.model.config import padded


class Linear(nn.Linear):
    """Computes x @ weight.T, with `weight` (out, in)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        """Zeros."""
        nn.init.zeros_(self.weight)


class Table(nn.Module):
    """A row of width D for each token id: `weight` (V rounded up, D), of which only V rows are visible outside.

    The padding rows are zero and stay zero: no id refers to them, and the loss and `Transformer.logits` leave them out.
    State dictionaries hold V rows.
    """

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.weight = nn.Parameter(torch.zeros(padded(vocab_size), width))
        self.register_state_dict_post_hook(_without_padding)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_padding)  # type: ignore[no-untyped-call]

    def forward(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, D)
        is_padded = len(self.weight) != self.vocab_size
        return F.embedding(ids, self.weight[: self.vocab_size] if is_padded else self.weight)


def table_rows(model: nn.Module) -> dict[int, int]:
    """Return V for each padded table, by the `id` of its parameter."""
    tables = [module for module in model.modules() if isinstance(module, Table)]
    return {id(table.weight): table.vocab_size for table in tables if len(table.weight) != table.vocab_size}


def with_rows(tensor: Tensor, rows: int) -> Tensor:
    """Return `tensor` with `rows` rows: a cut copy, or with zeros appended."""
    if len(tensor) > rows:
        return tensor[:rows].clone()
    return F.pad(tensor, (0, 0, 0, rows - len(tensor))) if len(tensor) < rows else tensor


def _without_padding(module: nn.Module, state: dict[str, Any], prefix: str, metadata: object) -> None:
    assert isinstance(module, Table)
    if padded(module.vocab_size) != module.vocab_size:
        state[f"{prefix}weight"] = state[f"{prefix}weight"][: module.vocab_size]


def _with_padding(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    assert isinstance(module, Table)
    weight, missing = state.get(f"{prefix}weight"), padded(module.vocab_size) - module.vocab_size
    if missing and weight is not None and len(weight) == module.vocab_size:
        state[f"{prefix}weight"] = F.pad(weight, (0, 0, 0, missing))
