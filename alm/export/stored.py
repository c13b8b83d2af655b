"""Weights in files of safetensors as other people leave them: one file, or several with an index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from alm.errors import InputError

WEIGHTS_NAME, INDEX_NAME = "model.safetensors", "model.safetensors.index.json"
_DTYPES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}


@dataclass(frozen=True)
class StoredWeights:
    """The tensors of a folder by name; nothing but their descriptions is read before `tensors`."""

    files: tuple[Path, ...]
    shapes: dict[str, tuple[int, ...]]
    dtype: str

    @classmethod
    def of(cls, folder: Path) -> StoredWeights:
        """What lies in `folder`; `InputError` when there is nothing to read, or it is damaged."""
        paths = _files(folder)
        shapes: dict[str, tuple[int, ...]] = {}
        dtypes: set[str] = set()
        for path in paths:
            for name, shape, dtype in _described(path):
                shapes[name] = shape
                dtypes.add(dtype)
        unknown = sorted(dtypes - _DTYPES.keys())
        if unknown:
            raise InputError(
                f"`{folder}` stores numbers as {unknown[0]}, and alm reads {', '.join(_DTYPES)}",
                hint="convert the weights to bfloat16 with the tool that wrote them",
            )
        return cls(tuple(paths), shapes, ", ".join(sorted(_DTYPES[dtype] for dtype in dtypes)))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Each tensor with its name, as it is stored."""
        for path in self.files:
            with _opened(path) as file:
                for name in file.keys():  # noqa: SIM118 - it is no mapping
                    yield name, file.get_tensor(name)


def _files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS_NAME).is_file():
        return [folder / WEIGHTS_NAME]
    index = folder / INDEX_NAME
    if not index.is_file():
        raise InputError(
            f"`{folder}` has no `{WEIGHTS_NAME}` and no `{INDEX_NAME}`",
            hint="other forms may run code when they are read: save it with `save_pretrained` of transformers",
        )
    names = _indexed(index)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(f"`{folder / missing[0]}` is missing, which `{index}` names", hint=f"run `ls {folder}`")
    return [folder / name for name in names]


def _indexed(index: Path) -> list[str]:
    """The files that an index names, all of them beside it."""
    try:
        named = json.loads(index.read_bytes())["weight_map"].values()
        names = sorted({str(name) for name in named})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"`{index}` is damaged: {error!r}", hint=f"run `head -c 200 {index}`") from error
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise InputError(f"`{index}` names `{outside[0]}`, which does not lie beside it", hint=f"run `head {index}`")
    return names


def _described(path: Path) -> Iterator[tuple[str, tuple[int, ...], str]]:
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            part = file.get_slice(name)
            yield name, tuple(part.get_shape()), part.get_dtype()


def _opened(path: Path) -> Any:  # Any: a context manager of a library without types
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise InputError(f"`{path}` is damaged: {error}", hint="fetch the file again") from error
