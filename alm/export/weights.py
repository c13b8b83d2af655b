"""Reading and writing tensors as safetensors files."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch import Tensor

from alm.files import wrap_os_errors

_SYSTEM_ERROR = re.compile(r"os error (\d+)")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def narrowed(weights: dict[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Return the tensors with their values rounded to `dtype`."""
    return {name: tensor.to(DTYPES[dtype]) for name, tensor in weights.items()}


def too_large(weights: dict[str, Tensor], dtype: str) -> list[str]:
    """Report the first tensor with a value that `dtype` cannot hold; usually empty."""
    largest = torch.finfo(DTYPES[dtype]).max
    found = [name for name, tensor in weights.items() if tensor.abs().max() > largest]
    return [f"`{found[0]}` has values beyond {largest:,.0f}, the largest of {dtype}"] if found else []


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write `tensors` to `path` and to the disk."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with wrap_os_errors(path):
        path.touch()
        mode = path.stat().st_mode  # the usual mode: the library would make the file private
        # transformers needs `format`.
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
        except SafetensorError as error:  # carries the system's error only as text
            number = _SYSTEM_ERROR.search(str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        path.chmod(mode)
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors in `path`, on the CPU."""
    from safetensors.torch import load_file

    return load_file(path)
