"""A model whose matrices are codes: layers that take the place of those with numbers.

B batch, T tokens, V vocabulary, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alm.model.config import ModelConfig
from alm.model.layers import PaddedEmbedding
from alm.model.transformer import Transformer
from alm.quant.codes import Int4Matrix, Int8Matrix, Matrix

_WEIGHT = ".weight"


class _Codes(nn.Module):
    """Codes and scales as buffers, which move to a device with the model."""

    def __init__(self, matrix: Matrix) -> None:
        super().__init__()
        self._kind = type(matrix)
        self.register_buffer("codes", matrix.codes)
        self.register_buffer("scales", matrix.scales)
        self.codes: Tensor
        self.scales: Tensor

    @property
    def matrix(self) -> Matrix:
        """The codes and scales, on the model's device."""
        return self._kind(self.codes, self.scales)

    @property
    def weight(self) -> Tensor:
        """The values in fp32, computed at each use."""
        return self.matrix.dequantized()


class QuantizedLinear(_Codes):
    """Computes x @ weight.T + bias."""

    def __init__(self, matrix: Matrix, bias: Tensor | None) -> None:
        super().__init__(matrix)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of `x` (..., in)."""
        return F.linear(x, self.weight.to(x.dtype), self.bias)


class QuantizedEmbedding(_Codes):
    """A row of codes for each token id."""

    def forward(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, D)
        return self.matrix.rows(ids)

    def scores(self, hidden: Tensor) -> Tensor:
        """Return scores (..., V) of the next token from hidden states (..., D)."""
        return F.linear(hidden, self.weight)


def network(config: ModelConfig, weights: Mapping[str, Tensor | Matrix]) -> Transformer:
    """Return the model of `config` with `weights`, by the names of its `state_dict`, ready to evaluate.

    It shares their memory.
    """
    with torch.device("meta"):
        model = Transformer(config)
    numbers = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    for name, value in weights.items():
        if isinstance(value, Int8Matrix | Int4Matrix):
            path = name.removesuffix(_WEIGHT)
            parent, _, last = path.rpartition(".")
            is_table = isinstance(model.get_submodule(path), PaddedEmbedding)
            layer = QuantizedEmbedding(value) if is_table else QuantizedLinear(value, numbers.pop(f"{path}.bias", None))
            setattr(model.get_submodule(parent), last, layer)
            numbers |= {f"{path}.{part}": tensor for part, tensor in layer.state_dict().items()}
    model.load_state_dict(numbers, assign=True)
    return model.eval()
