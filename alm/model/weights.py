"""Compares the names and shapes of a model's weights with those in a file, before any weight is allocated."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from alm.errors import ConfigError
from alm.model.config import ModelConfig
from alm.model.count import count

Shapes = Mapping[str, tuple[int, ...]]

# Ends of the names of an adapter's tensors, A and B (`alm.model.lora`).
A_NAME, B_NAME = ".lora_A.weight", ".lora_B.weight"
_LAYERS, _SECOND_LAYER = "model.layers.", "model.layers.1."
_TABLE_BYTES = 1 << 30  # limit for tables of positions, or the bytes of the weights if those are more
_TIMES = 8  # a model with more than this multiple of the file's numbers is refused by its count, not built
_MANY = 5


def is_adapter(name: str) -> bool:
    """Whether `name` is that of an adapter's tensor."""
    return name.endswith((A_NAME, B_NAME))


def shapes_of(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the model's weights, in the order of its `state_dict`.

    It builds two layers on the meta device, which takes no memory. Further layers equal the second.
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
    """Return the differences between weights of the shapes `found` and those of `model`, a sentence each.

    `spare` names extra weights that may exist. The size of the configured model is first compared with the file, so
    that the work is bounded by the file's size, whatever numbers the configuration has.
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
    """Return the differences between the shapes `found` and `expected`, a sentence each, at most a few."""
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
    tables = model.positions.table_bytes(model)
    if tables > max(_TABLE_BYTES, 4 * wanted):
        return (
            f"`model.max_position_embeddings` is {model.max_position_embeddings:,}, whose tables take {tables:,} bytes"
        )
    return None
