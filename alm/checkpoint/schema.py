"""Checks the fields of a checkpoint, and that its weights match its configuration."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, InstanceOf, ValidationError

from alm.checkpoint.format import AVERAGE, FORMAT_VERSION
from alm.checkpoint.pickled import StoredTensor, UnreadableError
from alm.config.base import Config
from alm.model.config import ModelConfig
from alm.model.weights import A_NAME, B_NAME, differences, is_adapter

WEIGHT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_MOST_COUNT = 2**53
_RANDOM_BYTES = 1 << 16  # PyTorch's generators have 5,056 on a CPU and 16 on a GPU

_Count = Annotated[int, Field(strict=True, ge=0, lt=_MOST_COUNT)]
_Text = Annotated[str, Field(strict=True, max_length=4096)]
_Hash = Annotated[str, Field(strict=True, max_length=128)]
_Tensors = dict[_Text, InstanceOf[StoredTensor]]
_Plain = dict[_Text, Any]


class _LossScale(Config):
    """The state of `alm.training.state.LossScaler`."""

    scale: float = Field(strict=True, gt=0, le=2.0**127)
    good_steps: _Count


class CheckpointFields(Config):
    """The fields of `Checkpoint` with tensors that are not read yet. Unknown fields, of a later alm, are ignored."""

    model_config = ConfigDict(extra="ignore")

    format_version: int = Field(strict=True, ge=1, le=FORMAT_VERSION)
    step: _Count
    samples_seen: _Count
    model: _Tensors
    optimizer: _Plain
    rng: list[_Tensors]
    config: _Plain
    environment: dict[_Text, _Text]
    tokenizer_sha256: _Hash
    data_sha256: _Hash
    skipped_steps: _Count = 0
    skipped_in_row: _Count = 0
    loss_scaler: _LossScale | None = None
    trained: _Tensors | None = None


def check(values: dict[str, Any]) -> None:  # Any: as `pickled.parse`
    """Raise `UnreadableError` if the fields of a checkpoint are not valid."""
    try:
        found = CheckpointFields.model_validate(values)
    except ValidationError as error:
        raise UnreadableError(_first(error, "")) from error
    _check_random(found.rng)
    _check_config(found.config, "config")
    faults = _weight_faults(found.model, model_of(found.config))
    if not faults and found.trained is not None:
        has_adapters = any(is_adapter(name) for name in found.trained)
        faults = (
            _adapter_faults(found.trained, found.model, rank=_rank(found.config))
            if has_adapters
            else _weight_faults(found.trained, model_of(found.config))
        )
    if faults:
        raise UnreadableError("\n  ".join(["its weights do not match its configuration:", *faults]))


def model_of(config: dict[str, Any]) -> ModelConfig:  # Any: plain values
    """Return the model that the configuration of a checkpoint describes."""
    if not isinstance(config.get("model"), dict):
        raise UnreadableError(f"`config.model` is {reprlib.repr(config.get('model'))}, not a mapping")
    try:
        return ModelConfig.model_validate(config["model"])
    except ValidationError as error:
        raise UnreadableError(_first(error, "config.model.")) from error


def _first(error: ValidationError, prefix: str) -> str:
    first = error.errors(include_url=False)[0]
    place = prefix + ".".join(str(part)[:60] for part in first["loc"])
    if first["type"] == "missing":
        return f"it has no `{place}`"
    reason = first["msg"].removeprefix("Value error, ").partition(" or instance of ")[0]
    for theirs, ours in (("Input should", "it should"), ("an instance of StoredTensor", "a tensor")):
        reason = reason.replace(theirs, ours)
    return f"`{place.rstrip('.')}` is {reprlib.repr(first['input'])}: {reason}"


def _check_random(ranks: list[_Tensors]) -> None:
    for rank, states in enumerate(ranks):
        for name, state in states.items():
            if state.dtype != torch.uint8 or len(state.shape) != 1 or not 0 < state.numel <= _RANDOM_BYTES:
                raise UnreadableError(f"`rng.{rank}.{name[:60]}` is {state}, not the state of a random generator")


def _check_config(value: Any, place: str) -> None:  # Any: plain values
    """Refuse values that the YAML or JSON of a configuration cannot hold."""
    if isinstance(value, StoredTensor):
        raise UnreadableError(f"`{place}` is a tensor")
    if isinstance(value, float) and not math.isfinite(value):
        raise UnreadableError(f"`{place}` is {value}")
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    for key, part in parts:
        if isinstance(value, dict) and not isinstance(key, str):
            raise UnreadableError(f"`{place}` has the key {key}, which is not text")
        _check_config(part, f"{place}.{str(key)[:60]}")


def _rank(config: dict[str, Any]) -> object:
    lora = config.get("lora")
    return lora.get("rank") if isinstance(lora, dict) else None


def _adapter_faults(adapters: _Tensors, weights: _Tensors, *, rank: object) -> list[str]:
    """Return what is wrong with adapters of the matrices in `weights`, the first of it."""
    has_average = any(name.startswith(AVERAGE) for name in adapters)
    for name, tensor in adapters.items():
        own = name.removeprefix(AVERAGE)
        module = own.removesuffix(A_NAME).removesuffix(B_NAME)
        matrix = weights.get(f"{module}.weight")
        if not is_adapter(name) or matrix is None or len(matrix.shape) != 2:
            return [f"`{name[:120]}` is not an adapter of a matrix of the model"]
        outputs, inputs = matrix.shape
        if tensor.dtype not in WEIGHT_DTYPES or tensor.shape != (
            (rank, inputs) if own.endswith(A_NAME) else (outputs, rank)
        ):
            return [f"`{name[:120]}` is {tensor}, which does not fit {matrix} and `lora.rank` {rank}"]
        parts = [own, module + A_NAME, module + B_NAME, *([AVERAGE + own] if has_average else [])]
        missing = [part for part in parts if part not in adapters]
        if missing:
            return [f"it has no `{missing[0][:120]}`"]
    return []


def _weight_faults(weights: _Tensors, model: ModelConfig) -> list[str]:
    faults = [
        f"`{name[:120]}` is {weight}, but alm reads weights of float32, bfloat16 and float16"
        for name, weight in weights.items()
        if weight.dtype not in WEIGHT_DTYPES
    ]
    return faults[:1] or differences(model, {name: weight.shape for name, weight in weights.items()})
