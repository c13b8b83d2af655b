"""The file of quantized weights: safetensors with a block of its own that describes them. `docs/formats.md` has it.

A matrix NAME is stored as `NAME.codes` and `NAME.scales`, everything else in fp32 under its own name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from alm import artifacts
from alm.artifacts import QuantizedMetadata, Sha256, first_problem
from alm.config.base import Config
from alm.errors import AlmError, ArtifactError, InputError, shell
from alm.events import Listener, Warned, ignore
from alm.files import parse_json, sha256
from alm.files.tensors import described, opened, write_tensors
from alm.model.config import ModelConfig
from alm.model.weights import differences
from alm.quant.codes import GROUP, LARGEST_INT8, PACKED_ZERO, Int4Matrix, Int8Matrix, Matrix, TypeName, in_numbers

FORMAT_VERSION = 1
METADATA_NAME = "quantized.json"
_BLOCK = "alm_quantized"
_CODES, _SCALES = ".codes", ".scales"
_TYPES = {"F32": torch.float32, "I8": torch.int8, "U8": torch.uint8, "F16": torch.float16}


class Block(Config):
    """What the file says about itself.

    `group` is the number of columns that share a scale in int4. `source_sha256` is the hash of the checkpoint that was
    rounded, `step` its step.
    """

    format: Literal["alm-quantized"] = "alm-quantized"
    format_version: Annotated[int, Field(strict=True, ge=1)] = FORMAT_VERSION
    to: TypeName
    group: Annotated[int, Field(strict=True)] = GROUP
    model: ModelConfig
    step: Annotated[int, Field(strict=True, ge=0)]
    tokenizer_sha256: Sha256
    source_sha256: Sha256


@dataclass(frozen=True)
class QuantizedModel:
    """A model's weights, by the names of its `state_dict`, and what its file says."""

    block: Block
    weights: dict[str, Tensor | Matrix]

    def dequantized(self) -> dict[str, Tensor]:
        """Return all weights in fp32."""
        return in_numbers(self.weights)


def write(path: Path, model: QuantizedModel) -> None:
    """Write the file at `path`."""
    stored: dict[str, Tensor] = {}
    for name, value in model.weights.items():
        if isinstance(value, Tensor):
            stored[name] = value
        else:
            stored[name + _CODES], stored[name + _SCALES] = value.codes, value.scales
    write_tensors(path, stored, {_BLOCK: json.dumps(model.block.model_dump(mode="json"), sort_keys=True)})


def read_block(path: Path) -> Block:
    """Return what the file at `path` says about itself; `ArtifactError` if it is not a quantized model of alm."""
    try:
        list(described(path))  # checks the header
        with opened(path) as file:
            text = (file.metadata() or {}).get(_BLOCK)
    except InputError as error:
        raise ArtifactError(error.message, hint=_again(path)) from error
    if text is None:
        raise ArtifactError(
            f"`{path}` is not a quantized model of alm: its header has no `{_BLOCK}`",
            hint=f"run `{shell('alm', 'import', path.parent)}` for a model of another tool",
        )
    try:
        values = parse_json(text.encode())
        version = values.get("format_version") if isinstance(values, dict) else None
        if type(version) is int and version > FORMAT_VERSION:
            raise AlmError(
                f"`{path}` has format version {version}, this alm reads {FORMAT_VERSION}",
                hint="run `pip install --upgrade a-lm`",
            )
        block = Block.model_validate(values)
    except ValidationError as error:
        raise _damaged(path, first_problem(error)) from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if block.group != GROUP:
        raise _damaged(path, f"its groups have {block.group} columns, but {GROUP} share a scale")
    return block


def open_verified(path: Path, *, on_event: Listener = ignore) -> tuple[QuantizedModel, str]:
    """Read the file at `path`, and return its hash too. `ArtifactError` if `METADATA_NAME` beside it has another one.

    A copy without this metadata gets a warning.
    """
    if not path.is_file():
        raise ArtifactError(f"`{path}` does not exist", hint=_again(path))
    digest, beside = sha256(path), path.with_name(METADATA_NAME)
    if not beside.is_file():
        on_event(Warned(f"`{path}` has no `{METADATA_NAME}` beside it, so it cannot be verified"))
    else:
        metadata = artifacts.read(beside, QuantizedMetadata, hint=_again(path))
        promised = {file.path: file.sha256 for file in metadata.files}
        if promised.get(path.name) != digest:
            raise _damaged(path, f"its hash differs from the one in `{METADATA_NAME}`")
    return read(path), digest


def read(path: Path) -> QuantizedModel:
    """Read the file at `path`; `ArtifactError` unless its tensors are those of its model, with codes in their range."""
    block = read_block(path)
    found = {name: (shape, dtype) for name, shape, dtype in described(path)}
    shapes = _shapes(path, found)
    if faults := differences(block.model, shapes):
        raise _damaged(path, faults[0])
    weights: dict[str, Tensor | Matrix] = {}
    with opened(path) as file:
        for name in shapes:
            if name in found:
                weights[name] = _finite(path, name, file.get_tensor(name))
                continue
            codes, scales = file.get_tensor(name + _CODES), file.get_tensor(name + _SCALES)
            _finite(path, name + _SCALES, scales)
            weights[name] = Int8Matrix(codes, scales) if codes.dtype == torch.int8 else Int4Matrix(codes, scales)
            if codes.dtype == torch.int8:
                _check_range(path, name, codes, scales)
            if _has_lost_scales(codes, scales):
                raise _damaged(path, f"`{name}` has a scale of zero for codes that are not zero")
    return QuantizedModel(block, weights)


def _shapes(path: Path, found: Mapping[str, tuple[tuple[int, ...], str]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights that the tensors describe, from the header alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (shape, dtype) in found.items():
        if name.endswith(_SCALES) and name.removesuffix(_SCALES) + _CODES in found:
            continue
        if not name.endswith(_CODES):
            if dtype != "F32":
                raise _damaged(path, f"`{name[:120]}` is {dtype}, but numbers are F32")
            shapes[name] = shape
            continue
        weight = name.removesuffix(_CODES)
        if weight in found:
            raise _damaged(path, f"`{weight[:120]}` is there twice, as numbers and as codes")
        scales, scale_type = found.get(weight + _SCALES, ((), "none"))
        if dtype not in ("I8", "U8") or scale_type != "F16" or len(shape) != 2:
            raise _damaged(path, f"`{name[:120]}` is {dtype} {list(shape)}, with scales of {scale_type}")
        rows, width = shape[0], shape[1] * (1 if dtype == "I8" else 2)
        wanted = (rows,) if dtype == "I8" else (rows, width // GROUP)
        if scales != wanted or (dtype == "U8" and width % GROUP):
            is_wrong = f"`{weight[:120]}` of {rows} x {width} has scales of {list(scales)}, not {list(wanted)}"
            raise _damaged(path, is_wrong)
        shapes[weight] = (rows, width)
    return shapes


def _finite(path: Path, name: str, tensor: Tensor) -> Tensor:
    if not tensor.isfinite().all():
        raise _damaged(path, f"`{name}` has values that are not finite")
    return tensor


def _check_range(path: Path, name: str, codes: Tensor, scales: Tensor) -> None:
    if codes.numel() and int(codes.min()) < -LARGEST_INT8:
        raise _damaged(path, f"`{name}` has the code {int(codes.min())}, below -{LARGEST_INT8}")
    if (scales < 0).any():
        raise _damaged(path, f"`{name}` has a scale below zero")


def _has_lost_scales(codes: Tensor, scales: Tensor) -> bool:
    """Whether codes have a scale of zero and are not zero, as those of values too small for a scale are."""
    is_zero = scales == 0
    if not is_zero.any():
        return False
    zero = 0 if codes.dtype == torch.int8 else PACKED_ZERO
    groups = codes.view(*scales.shape, -1)[is_zero]
    return bool((groups != zero).any())


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(f"`{path}` is damaged: {reason}", hint=_again(path))


def _again(path: Path) -> str:
    return f"run `{shell('alm', 'quantize', '--help')}` to see how to make `{path.parent}` again"
