"""The names and shapes of a model's weights, compared with those that a file has: before anything is made."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from alm import kinds
from alm.errors import ConfigError
from alm.model.config import ModelConfig
from alm.model.count import count

Shapes = Mapping[str, tuple[int, ...]]

_LAYERS, _SECOND_LAYER = "model.layers.", "model.layers.1."
_TABLE_BYTES = 1 << 30  # of positions: so many, or as many as the weights have
_TIMES = 8  # a configuration may ask for so many times the numbers that are there before it is only counted
_MANY = 5


def shapes_of(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the model's weights, in the order of its `state_dict`.

    Two layers are made, on the meta device, which takes no memory; those that follow are as the second.
    """
    import torch

    from alm.model.transformer import Transformer

    # Tables of positions are not weights.
    small = model.model_copy(update={"n_layers": min(model.n_layers, 2), "max_position_embeddings": 1})
    with torch.device("meta"):
        found = {name: tuple(tensor.shape) for name, tensor in Transformer(small).state_dict().items()}
    shapes: dict[str, tuple[int, ...]] = {}
    second = {name: shape for name, shape in found.items() if name.startswith(_SECOND_LAYER)}
    for name, shape in found.items():
        shapes[name] = shape
        if second and name == list(second)[-1]:
            for layer in range(2, model.n_layers):
                shapes |= {
                    f"{_LAYERS}{layer}.{each.removeprefix(_SECOND_LAYER)}": shape for each, shape in second.items()
                }
    return shapes


def differences(model: ModelConfig, found: Shapes, *, spare: Collection[str] = ()) -> list[str]:
    """How weights of the shapes `found` differ from those of `model`, a sentence each; empty where they are the same.

    `spare` names weights that may be there and are not the model's. What the configuration asks for is first compared
    with what is there, so that the work is never more than the file is large, whatever its numbers say.
    """
    too_much = _too_much(model, found)
    if too_much:
        return [too_much]
    try:
        expected = shapes_of(model)
    except (ArithmeticError, ValueError) as error:
        return [f"the configuration's model cannot be made: {error}"]
    return mismatches(expected, found, spare=spare)


def mismatches(expected: Shapes, found: Shapes, *, spare: Collection[str] = ()) -> list[str]:
    """How the shapes `found` differ from those `expected`, a sentence each, the first few of many."""
    faults = [f"it has no `{name}`" for name in expected.keys() - found.keys()]
    faults += [f"`{name[:120]}` is not a weight of the model" for name in found.keys() - expected.keys() - set(spare)]
    faults += [
        f"`{name}` is {list(found[name])}, but {list(shape)} by the configuration"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    faults.sort()
    return [*faults[:_MANY], f"and {len(faults) - _MANY} more"] if len(faults) > _MANY else faults


def _too_much(model: ModelConfig, found: Shapes) -> str | None:
    if model.n_layers > len(found):
        return f"`model.n_layers` is {model.n_layers:,}, but it has only {len(found):,} weights"
    try:
        wanted = count(model).total
    except ConfigError as error:
        return error.message
    there = sum(map(math.prod, found.values()))
    if wanted > _TIMES * there:
        return f"the configuration's model has {wanted:,} parameters, but it has only {there:,}"
    tables: int = kinds.module_of(model.positions).table_bytes(model)
    if tables > max(_TABLE_BYTES, 4 * wanted):
        return (
            f"`model.max_position_embeddings` is {model.max_position_embeddings:,}, whose tables take {tables:,} bytes"
        )
    return None
