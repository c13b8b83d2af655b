"""The type of each tensor in a GGUF file, and its numbers in blocks of that type.

The types are those that `llama-quantize` chooses for Q8_0, Q5_1, Q4_0 and Q4_K (which is its Q4_K_M). A matrix of a
quantized model whose codes have the layout of a type is written from its codes, without a second rounding.

N rows, W columns, G groups of 32 columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from alm.export.targets import _gguf_k_quants, _gguf_model
from alm.export.targets._gguf_model import Numbers
from alm.model.config import ModelConfig
from alm.quant.codes import GROUP, Int4Matrix, Matrix

if TYPE_CHECKING:
    import gguf

    from alm.export.source import Source

Dtype = Literal["f32", "f16", "q8_0", "q5_1", "q4_0", "q4_k"]
Array = npt.NDArray[Any]  # Any: numbers of any type

FILE_TYPES: dict[Dtype, str] = {
    "f32": "ALL_F32",
    "f16": "MOSTLY_F16",
    "q8_0": "MOSTLY_Q8_0",
    "q5_1": "MOSTLY_Q5_1",
    "q4_0": "MOSTLY_Q4_0",
    "q4_k": "MOSTLY_Q4_K_M",
}
"""Name of a file's type by its `dtype`, in the library `gguf`."""

_FALLBACKS = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}
"""The type of rows that are no whole blocks of 256. Rows that are no whole blocks of 32 either are F16."""
_OWN_QUANTIZERS = {"Q4_K": _gguf_k_quants.q4_k, "Q6_K": _gguf_k_quants.q6_k}
_PRECISE = re.compile(r"blk\.(\d+)\.(attn_v|ffn_down)\.weight", re.ASCII)
"""Matrices that Q4_K_M holds in Q6_K, in some layers."""


def dtype_of(source: Source) -> Dtype:
    """Return the type that holds the model as it is: that of its codes, or else f32."""
    if any(isinstance(matrix, Int4Matrix) for matrix in source.codes.values()):
        return "q4_0"
    return "q8_0" if source.codes else "f32"


def tensors(source: Source, dtype: Dtype) -> Iterator[tuple[str, Array, gguf.GGMLQuantizationType]]:
    """Yield each tensor by its name in GGUF, with its rows in llama.cpp's order, and its type."""
    codes = source.codes if dtype == dtype_of(source) else {}
    for name, tensor in source.weights.items():
        matrix = codes.get(name)
        theirs = _gguf_model.gguf_name(name)
        if matrix is not None and matrix.shape[1] % GROUP == 0:
            array, kind = of_codes(matrix)
        else:
            array, kind = stored(tensor.numpy(), type_name(theirs, tuple(tensor.shape), dtype, source.model))
        yield theirs, _gguf_model.in_their_order(name, array, source.model), kind


def type_name(name: str, shape: tuple[int, ...], dtype: Dtype, model: ModelConfig) -> str:
    """Return the type of the tensor `name` in a file of `dtype`, by its name in the library `gguf`."""
    import gguf

    if dtype == "f32" or len(shape) == 1:
        return "F32"
    if dtype == "f16":
        return "F16"
    found = dtype.upper()
    if found != "Q8_0" and (_is_output(name, model) or (found == "Q4_K" and _is_precise(name, model.n_layers))):
        found = "Q6_K"

    def fits(kind: str) -> bool:
        block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        return shape[1] % block == 0

    found = found if fits(found) else _FALLBACKS.get(found, "F16")
    return found if fits(found) else "F16"


def _is_output(name: str, model: ModelConfig) -> bool:
    return name == ("token_embd.weight" if model.tie_embeddings else "output.weight")


def _is_precise(name: str, layers: int) -> bool:
    """Whether Q4_K_M gives the matrix more bits: in the first and the last eighth of the layers, and every third."""
    found = _PRECISE.fullmatch(name)
    if found is None:
        return False
    layer, eighth = int(found[1]), layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def stored(values: Numbers, type_name: str) -> tuple[Array, gguf.GGMLQuantizationType]:
    """Return `values` as the file holds them in this type, and the type."""
    import gguf

    kind = gguf.GGMLQuantizationType[type_name]
    if type_name == "F32":
        return values, kind
    if type_name == "F16":
        return values.astype(np.float16), kind
    if type_name in _OWN_QUANTIZERS:
        return _OWN_QUANTIZERS[type_name](values), kind
    with np.errstate(all="ignore"):  # a block of numbers below 1e-38 has the scale zero
        return gguf.quants.quantize(values, kind), kind


def of_codes(matrix: Matrix) -> tuple[Array, gguf.GGMLQuantizationType]:
    """Return the blocks (N, bytes) that hold exactly the values of `matrix`, and their type."""
    import gguf

    rows, width = matrix.shape
    groups = width // GROUP
    scales = matrix.scales.numpy().reshape(rows, -1, 1)  # (N, G, 1), or (N, 1, 1) in int8
    scale_bytes = np.ascontiguousarray(np.broadcast_to(scales, (rows, groups, 1))).view(np.uint8)  # (N, G, 2)
    codes = matrix.codes.numpy().view(np.uint8).reshape(rows, groups, -1)
    kind = gguf.GGMLQuantizationType.Q4_0 if isinstance(matrix, Int4Matrix) else gguf.GGMLQuantizationType.Q8_0
    return np.concatenate([scale_bytes, codes], axis=2).reshape(rows, -1), kind
