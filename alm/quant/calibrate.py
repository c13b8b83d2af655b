"""Rounding of a whole model: which matrices become codes, and the text on which int4 is calibrated.

R rows of text, T tokens, D model width, W width of an input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from alm.model.layers import Linear, PaddedEmbedding
from alm.model.transformer import Transformer
from alm.quant import gptq
from alm.quant.codes import GROUP, Int8Matrix, Matrix, TypeName, fits_int4, to_int4, to_int8

Progress = Callable[[int, int], None]
_WEIGHT, _TABLES = ".weight", ("embed_tokens.weight", "lm_head.weight")
# The tables of a large vocabulary lose much more in int4 than all other matrices (docs/quantize.md), those of a small
# one little, and are then half of the file.
_ROWS_FOR_TABLES, _MOST_NATS_FOR_TABLES = 8, 0.01
_TINY = 1e-12
_MOST_TIMES_MEDIAN = 3.0  # length of an input, compared with the median of its text (docs/quantize.md)


class _ReachedError(Exception):
    """The first block is about to run."""


@torch.no_grad()
def quantized(
    model: Transformer,
    to: TypeName,
    *,
    tables: TypeName | None = None,
    text: Sequence[Tensor] = (),
    on_block: Progress = lambda done, total: None,
) -> dict[str, Tensor | Matrix]:
    """Round the matrices of `model`, which changes to the rounded values, and return its weights.

    `tables` is the type of the embedding and the output matrix (absent: int8, or int4 if that costs hardly more on
    `text`). `text` are rows of ids (R, T) for int4: each matrix is rounded for the inputs that it gets after the blocks
    before it were rounded. Without them, or where a matrix sees no input, the error of the weights themselves is made
    small. A matrix that does not consist of groups becomes int8. `on_block` gets the number of finished blocks.
    """
    found: dict[str, Tensor | Matrix] = {}
    inputs = _first_inputs(model, text) if to == "int4" else []
    blocks = list(model.model.layers)
    for number, block in enumerate(blocks):
        moments = _moments(block, inputs)
        for path, layer in block.named_modules():
            if isinstance(layer, Linear):
                name = f"model.layers.{number}.{path}{_WEIGHT}"
                found[name] = _rounded_(layer, to, moments.get(path))
        inputs = [(block(*given), *given[1:]) for given in inputs]
        on_block(number + 1, len(blocks))
    names = {path + _WEIGHT: table for path, table in model.named_modules() if isinstance(table, PaddedEmbedding)}
    kind = tables or (to if to == "int8" else _cheapest_tables(model, list(names.values()), text))
    found |= {name: _rounded_table_(table, kind) for name, table in names.items()}
    return {name: found.get(name, value) for name, value in model.state_dict().items()}


def _rounded_(layer: Linear, to: TypeName, moments: Tensor | None) -> Matrix:
    """Round the matrix of `layer`, and set it to the rounded values."""
    weight = layer.weight.detach().float()
    if to == "int8" or not fits_int4(tuple(weight.shape)):
        matrix: Matrix = to_int8(weight)
    else:
        matrix = to_int4(weight) if moments is None else gptq.to_int4(weight, moments)
    layer.weight.copy_(matrix.dequantized())
    return matrix


def _rounded_table_(table: PaddedEmbedding, to: TypeName) -> Matrix:
    weight = table.weight.detach()[: table.vocab_size].float()
    is_int4 = to == "int4" and fits_int4(tuple(weight.shape))
    matrix: Matrix = to_int4(weight) if is_int4 else to_int8(weight)
    table.weight[: table.vocab_size].copy_(matrix.dequantized())
    return matrix


def _cheapest_tables(model: Transformer, tables: Sequence[PaddedEmbedding], text: Sequence[Tensor]) -> TypeName:
    """Return int4 if `text` is hardly less likely with it than with int8, else int8. The tables stay as they are."""
    losses: dict[TypeName, float] = {}
    before = [table.weight.detach().clone() for table in tables]
    for kind in get_args(TypeName) if text else ():
        for table in tables:
            _rounded_table_(table, kind)
        rows = text[:_ROWS_FOR_TABLES]
        parts = [model.token_losses(model(ids[:, :-1]), ids[:, 1:]).flatten() for ids in rows]
        losses[kind] = torch.cat(parts).mean().item()
        for table, weight in zip(tables, before, strict=True):
            table.weight.copy_(weight)
    return "int4" if losses and losses["int4"] - losses["int8"] <= _MOST_NATS_FOR_TABLES else "int8"


def _first_inputs(model: Transformer, text: Sequence[Tensor]) -> list[tuple[Any, ...]]:  # Any: of a block's forward
    """Return what the first block gets for each of `text`."""
    found: list[tuple[Any, ...]] = []

    def keep(block: nn.Module, given: tuple[Any, ...]) -> None:
        found.append(given)
        raise _ReachedError

    hook = model.model.layers[0].register_forward_pre_hook(keep)
    try:
        for ids in text:
            try:
                model(ids)
            except _ReachedError:
                continue
    finally:
        hook.remove()
    return found


def _moments(block: nn.Module, inputs: Sequence[tuple[Any, ...]]) -> dict[str, Tensor]:
    """Return the sum of x x^T (W, W) over the inputs x of each matrix in `block`, by its path in the block.

    In some layers the first token of a text has inputs many times larger than those of the others. They are shortened,
    as they would be all that GPTQ sees.
    """
    found: dict[str, Tensor] = {}
    last: list[Tensor] = []  # an input and its moments: several matrices have the same input
    layers = [(path, layer) for path, layer in block.named_modules() if isinstance(layer, Linear)]

    def adding(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            if not last or last[0] is not given[0]:
                x = given[0].flatten(0, -2)
                norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
                x = x * (_MOST_TIMES_MEDIAN * norms.median() / norms.clamp_min(_TINY)).clamp_max(1)
                last[:] = given[0], x.T @ x
            found[path] = found.get(path, 0) + last[1]

        return add

    hooks = [layer.register_forward_pre_hook(adding(path)) for path, layer in layers]
    try:
        for given in inputs:
            block(*given)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def stored_bytes(shapes: Mapping[str, tuple[int, ...]], to: TypeName) -> int:
    """Return the bytes of weights of `shapes` in the type `to`, with tables in int8: as large as they can become."""
    total = 0
    for name, shape in shapes.items():
        if len(shape) < 2:
            total += 4 * math.prod(shape)
            continue
        rows, width = shape
        is_table = name.endswith(_TABLES)
        is_int4 = to == "int4" and fits_int4(shape) and not is_table
        total += rows * (width // 2 + 2 * (width // GROUP)) if is_int4 else rows * (width + 2)
    return total


def count_types(weights: dict[str, Tensor | Matrix]) -> dict[str, int]:
    """Count the numbers in `weights` by their type: int8, int4, fp32."""
    counts: dict[str, int] = {}
    for value in weights.values():
        name = "fp32" if isinstance(value, Tensor) else "int8" if isinstance(value, Int8Matrix) else "int4"
        rows, width = (1, value.numel()) if isinstance(value, Tensor) else value.shape
        counts[name] = counts.get(name, 0) + rows * width
    return counts
